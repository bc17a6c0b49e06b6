#!/usr/bin/env bash
# Create the metrics and plots in results/ from a real run on two collections.
# MASKS=DIR and LARGE=DIR: their unpacked folders. WEIGHTS=PATH|imagenet: weights of the backbone.
# WORK=DIR: folder for tables and models, which stays; existing models are not trained again.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
masks=${MASKS:?set MASKS=DIR to the folder of radiography-masks}
large=${LARGE:?set LARGE=DIR to the folder of radiography-15k}
weights=${WEIGHTS:-imagenet}
work=${WORK:-build/results}
mkdir -p "$work"

job() { "$bin/spark-submit" "submit/$1.py" "${@:2}"; }
train_model() { # NAME: train this model, unless it exists
  [ -e "$work/$1" ] || job train --warehouse "$work/$1.tables" --model "$work/$1" --weights "$weights"
}

job preprocess --input "$masks" --source masks --warehouse "$work/one.tables"
train_model one
job evaluate --input "$large" --model "$work/one" | tail -n 1 >"$work/unseen.json"
job report --warehouse "$work/one.tables" --model "$work/one" --out "$work/one.report"

job preprocess --input "$masks" --source masks --warehouse "$work/both.tables"
job preprocess --input "$large" --source 15k --warehouse "$work/both.tables"
train_model both
job report --warehouse "$work/both.tables" --model "$work/both" --out "$work/both.report"

"$bin/eagle" results --work "$work" --out results
