#!/usr/bin/env bash
# One scheduled run: doctor, score, on Sundays maintain, and a check of the result.
#   submit/scheduled_run.sh IMAGES MODEL WAREHOUSE [further options of score]
# Exit 0: success. 3: published, but needs attention: data drift, or many rejected files; also when
# a later step fails. Else: the exit code of the failed job. SUBMIT is the submit command, such as
#   SUBMIT='.venv/bin/spark-submit --properties-file conf/yarn-score.conf'
set -euo pipefail
cd "$(dirname "$0")/.."
usage='usage: submit/scheduled_run.sh IMAGES MODEL WAREHOUSE [options of score]'
[ $# -ge 3 ] || { echo "$usage" >&2; exit 2; }
images=$1 model=$2 warehouse=$3
submit=${SUBMIT:-.venv/bin/spark-submit}
started_at=$(date +%s)

$submit submit/doctor.py --warehouse "$warehouse" --weights none >&2
code=0
# spark-submit merges both outputs of the job: all lines go to standard error, for log or mail; the
# last line is the result.
result=$($submit submit/score.py --images "$images" --model "$model" --warehouse "$warehouse" "${@:4}" |
  sed -n -e 'w /dev/stderr' -e '$p') || code=$?
# In cluster mode the result is on the driver's node and in the table `runs`.
sql_literal() { local text=${1//\\/\\\\}; printf "'%s'" "${text//\'/\\\'}"; }
case $result in '{'*) ;; *) result=$(bash conf/sql/open.sh "$warehouse" -e "
  SELECT result FROM runs WHERE job = 'score' AND started_at >= timestamp_seconds($started_at)
  AND get_json_object(settings, '\$.images') = $(sql_literal "$images")
  AND get_json_object(settings, '\$.model') = $(sql_literal "$model") ORDER BY started_at") || result= ;;
esac
[ -z "$result" ] || printf '%s\n' "$result"
.venv/bin/python - "$code" "$result" <<'PYTHON' || code=$?
import json, sys

MAX_REJECTED_SHARE = 0.05  # of the new files of a run
code, runs = int(sys.argv[1]), [json.loads(line) for line in sys.argv[2].splitlines()]
for run in (run for run in runs if "scored" in run):
    new = run["scored"] + run["rejected"] - run["already_rejected"]
    share = (run["rejected"] - run["already_rejected"]) / max(new, 1)
    if run["exit_code"] == 3:
        print(f"attention: drift {run['drift_by']}, flagged {run['flagged']}", file=sys.stderr)
    if share > MAX_REJECTED_SHARE:
        print(f"attention: {share:.0%} of {new} new files were rejected", file=sys.stderr)
    if run["exit_code"] == 3 or share > MAX_REJECTED_SHARE:
        code = 3
if not runs and not code:
    print("attention: the result of this run is missing", file=sys.stderr)
    code = 3
sys.exit(code)
PYTHON
# When score fails after publishing, maintain still runs.
case $code:$result in 0:* | 3:* | *'"scored"'*) ;; *) exit "$code" ;; esac
failed=0
[ "$(date +%u)" != 7 ] || $submit submit/maintain.py --warehouse "$warehouse" >&2 || failed=$?
exit $((code ? code : failed))
