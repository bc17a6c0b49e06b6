#!/usr/bin/env bash
# One night: doctor, score, on Sundays maintain, and whether a person must look.
#   submit/night.sh IMAGES MODEL WAREHOUSE [further options of score]
# Exit 0: a quiet night. 3: published, but look before you believe it: tonight's images are not what
# the model knows, or many files were rejected. Else: that of the job that
# failed. SUBMIT is what jobs are submitted with, such as
#   SUBMIT='.venv/bin/spark-submit --properties-file conf/yarn-cluster.conf'
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 3 ] || { echo "usage: submit/night.sh IMAGES MODEL WAREHOUSE [options of score]" >&2; exit 2; }
images=$1 model=$2 warehouse=$3
submit=${SUBMIT:-.venv/bin/spark-submit}

$submit submit/doctor.py --warehouse "$warehouse" --weights none >&2
code=0
result=$($submit submit/score.py --images "$images" --model "$model" --warehouse "$warehouse" "${@:4}" | tail -n 1) || code=$?
[ "$code" = 0 ] || [ "$code" = 3 ] || { printf '%s\n' "$result"; exit "$code"; }
[ "$(date +%u)" != 7 ] || $submit submit/maintain.py --warehouse "$warehouse" >&2
# In cluster mode the figures are on the driver's node and in the table `runs`, not here.
case $result in '{'*) ;; *) exit "$code" ;; esac
printf '%s\n' "$result"
exec .venv/bin/python - "$result" <<'PYTHON'
import json, sys

MANY = 0.05  # share of tonight's files that were rejected
night = json.loads(sys.argv[1])
new = night["scored"] + night["rejected"] - night["already_rejected"]
rejected = (night["rejected"] - night["already_rejected"]) / max(new, 1)
code = night["exit_code"]
if code:
    print(f"look: shift {night['shift_by']}, flagged {night['flagged']}", file=sys.stderr)
if rejected > MANY:
    print(f"look: {rejected:.0%} of {new} new files were rejected", file=sys.stderr)
    code = 3
sys.exit(code)
PYTHON
