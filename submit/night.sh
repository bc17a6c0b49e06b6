#!/usr/bin/env bash
# One night: doctor, score, on Sundays maintain, and whether a person must look.
#   submit/night.sh IMAGES MODEL WAREHOUSE [further options of score]
# Exit 0: a quiet night. 3: published, but look before you believe it. Else: that of the job that
# failed. SUBMIT is what jobs are submitted with, such as
#   SUBMIT='.venv/bin/spark-submit --properties-file conf/yarn-cluster.conf'
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 3 ] || { echo "usage: submit/night.sh IMAGES MODEL WAREHOUSE [options of score]" >&2; exit 2; }
images=$1 model=$2 warehouse=$3
submit=${SUBMIT:-.venv/bin/spark-submit}

$submit submit/doctor.py --warehouse "$warehouse" --weights none >&2
result=$($submit submit/score.py --images "$images" --model "$model" --warehouse "$warehouse" "${@:4}" | tail -n 1)
[ "$(date +%u)" != 7 ] || $submit submit/maintain.py --warehouse "$warehouse" >&2
# In cluster mode the figures are on the driver's node and in the table `runs`, not here.
case $result in '{'*) ;; *) exit 0 ;; esac
printf '%s\n' "$result"
exec .venv/bin/python - "$result" <<'PYTHON'
import json, sys
from eagle_spark.scoring.shift import LARGE

MANY = 0.05  # share of tonight's files that were rejected
night = json.loads(sys.argv[1])
new = night["scored"] + night["rejected"] - night["already_rejected"]
rejected = (night["rejected"] - night["already_rejected"]) / max(new, 1)
reasons = [
    f"{name} is {night[name]}, large above {LARGE}"
    for name in ("shift", "shift_from_nights")
    if (night[name] or 0) > LARGE
]
if rejected > MANY:
    reasons.append(f"{rejected:.0%} of {new} new files were rejected")
for reason in reasons:
    print(f"look: {reason}", file=sys.stderr)
sys.exit(3 if reasons else 0)
PYTHON
