#!/usr/bin/env bash
# The whole path on one machine: labelled folder -> table -> model -> predictions -> SQL -> picture.
# DATA=DIR takes a real folder in the layout of the COVID-19 Radiography Database,
# WEIGHTS=PATH|imagenet|none the backbone's weights, OUT=DIR the place for everything.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
out=${OUT:-demo}
data=${DATA:-}
weights=${WEIGHTS:-imagenet}
started=$SECONDS

step() { printf '\n== %s ==\n' "$1" >&2; }
job() {
  printf '$ spark-submit submit/%s' "$1.py" >&2
  printf ' %q' "${@:2}" >&2
  printf '\n' >&2
  "$bin/spark-submit" "submit/$1.py" "${@:2}"
}

if [ -e "$out" ]; then
  [ -e "$out/.made-by-demo" ] || { echo "error: OUT=$out is there and was not made by the demo; remove it or name another" >&2; exit 2; }
  rm -rf "$out"
fi
mkdir -p "$out" && touch "$out/.made-by-demo"
out=$(cd "$out" && pwd)

if [ -n "$data" ]; then
  labelled=$data
else
  step "1. A labelled folder is drawn, and one without labels that also holds broken files"
  labelled=$out/labelled
  "$bin/python" -m eagle_spark.datasets.synthetic.sample --out "$labelled" --images 180 --seed 7 \
    --unlabelled-out "$out/unlabelled" --unlabelled 60
fi

step "2. preprocess: Excel metadata and images become the table eagle.cxr.images"
job preprocess --input "$labelled" --warehouse "$out/warehouse"
if [ -n "$data" ]; then
  # What to score: patients that training never sees, and two broken files.
  "$bin/python" -m eagle_spark.report.demo --warehouse "$out/warehouse" --link-test "$out/unlabelled"
  : >"$out/unlabelled/empty.png"
  echo "no image" >"$out/unlabelled/text.png"
fi

step "3. train: two ranks in a Spark barrier stage"
if [ "$weights" = imagenet ] && ! "$bin/python" - >/dev/null 2>&1 <<'END'; then
from eagle_spark.model.weights import weights_file
with weights_file("imagenet"):
    pass
END
  printf '\nWARNING: no ImageNet weights can be downloaded here; the network starts at random and\n' >&2
  printf 'will know little. Give WEIGHTS=PATH of a MobileNetV2 weights file for a real model.\n\n' >&2
  weights=none
fi
job train --warehouse "$out/warehouse" --model "$out/model" --ranks 2 --weights "$weights"

step "4. score: every image of the other folder"
job score --images "$out/unlabelled" --model "$out/model" --warehouse "$out/warehouse" ||
  [ $? = 3 ]  # published, to be looked at

step "5. SQL over the predictions, and a picture"
"$bin/python" -m eagle_spark.report.demo --warehouse "$out/warehouse" --out "$out/predictions.png"
printf '\nPicture: %s\nSQL of your own: make sql WAREHOUSE=%s\nDone in %d s. Research use only.\n' \
  "$out/predictions.png" "$out/warehouse" "$((SECONDS - started))"
