#!/usr/bin/env bash
# One night: doctor, score, on Sundays maintain, and whether a person must look.
#   submit/night.sh IMAGES MODEL WAREHOUSE [further options of score]
# Exit 0: a quiet night. 3: published, but look before you believe it: tonight's images are not what
# the model knows, or many files were rejected; whatever failed after that. Else: that of the job
# that failed. SUBMIT is what jobs are submitted with, such as
#   SUBMIT='.venv/bin/spark-submit --properties-file conf/yarn-cluster.conf'
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 3 ] || { echo "usage: submit/night.sh IMAGES MODEL WAREHOUSE [options of score]" >&2; exit 2; }
images=$1 model=$2 warehouse=$3
submit=${SUBMIT:-.venv/bin/spark-submit}
begun=$(date +%s)

$submit submit/doctor.py --warehouse "$warehouse" --weights none >&2
code=0
# spark-submit puts what the job says on standard error there too: all of it goes to the log or mail.
told=$($submit submit/score.py --images "$images" --model "$model" --warehouse "$warehouse" "${@:4}" |
  sed -n -e 'w /dev/stderr' -e '$p') || code=$?
# In cluster mode the figures are on the driver's node and in the table `runs`.
literal() { local text=${1//\\/\\\\}; printf "'%s'" "${text//\'/\\\'}"; }
case $told in '{'*) ;; *) told=$(bash conf/sql/open.sh "$warehouse" -e "
  SELECT result FROM runs WHERE job = 'score' AND started_at >= timestamp_seconds($begun)
  AND get_json_object(settings, '\$.images') = $(literal "$images")
  AND get_json_object(settings, '\$.model') = $(literal "$model") ORDER BY started_at") || told= ;;
esac
[ -z "$told" ] || printf '%s\n' "$told"
.venv/bin/python - "$code" "$told" <<'PYTHON' || code=$?
import json, sys

MANY = 0.05  # share of tonight's files that were rejected
code, runs = int(sys.argv[1]), [json.loads(line) for line in sys.argv[2].splitlines()]
for night in (run for run in runs if "scored" in run):
    new = night["scored"] + night["rejected"] - night["already_rejected"]
    rejected = (night["rejected"] - night["already_rejected"]) / max(new, 1)
    if night["exit_code"] == 3:
        print(f"look: shift {night['shift_by']}, flagged {night['flagged']}", file=sys.stderr)
    if rejected > MANY:
        print(f"look: {rejected:.0%} of {new} new files were rejected", file=sys.stderr)
    if night["exit_code"] == 3 or rejected > MANY:
        code = 3
if not runs and not code:
    print("look: no figures of tonight were found", file=sys.stderr)
    code = 3
sys.exit(code)
PYTHON
# Where score published, and failed after that, tables are to be looked after as ever.
case $code:$told in 0:* | 3:* | *'"scored"'*) ;; *) exit "$code" ;; esac
failed=0
[ "$(date +%u)" != 7 ] || $submit submit/maintain.py --warehouse "$warehouse" >&2 || failed=$?
exit $((code ? code : failed))
