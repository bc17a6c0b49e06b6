#!/usr/bin/env bash
# The figures and plots in results/, from a real run on two collections.
# MASKS=DIR and LARGE=DIR are their folders, unpacked; WEIGHTS=PATH|imagenet, WORK=DIR the place for
# tables and models, which is kept: what is there already is not trained again.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
masks=${MASKS:?give MASKS=DIR, the folder of radiography-masks}
large=${LARGE:?give LARGE=DIR, the folder of radiography-15k}
weights=${WEIGHTS:-imagenet}
work=${WORK:-build/results}
mkdir -p "$work"

job() { "$bin/spark-submit" "submit/$1.py" "${@:2}"; }
model() { # NAME: train it, unless it is there
  [ -e "$work/$1" ] || job train --warehouse "$work/$1.tables" --model "$work/$1" --weights "$weights"
}

job preprocess --input "$masks" --source masks --warehouse "$work/one.tables"
model one
job evaluate --input "$large" --model "$work/one" | tail -n 1 >"$work/unseen.json"
job report --warehouse "$work/one.tables" --model "$work/one" --out "$work/one.report"

job preprocess --input "$masks" --source masks --warehouse "$work/both.tables"
job preprocess --input "$large" --source 15k --warehouse "$work/both.tables"
model both
job report --warehouse "$work/both.tables" --model "$work/both" --out "$work/both.report"

"$bin/python" -m eagle_spark.report.results --work "$work" --out results
