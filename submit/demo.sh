#!/usr/bin/env bash
# All steps on one machine: labelled folder -> table -> model -> predictions -> SQL -> image.
# DATA=DIR: a real folder in the layout of the COVID-19 Radiography Database.
# WEIGHTS=PATH|imagenet|none: weights of the backbone. OUT=DIR: folder for all output.
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

fail() { echo "error: $1" >&2; exit 2; }
[ -z "$data" ] || [ -d "$data" ] || fail "DATA: wanted a folder; got $data"
case $weights in
  imagenet | none) ;;
  *) [ -f "$weights" ] || fail "WEIGHTS: wanted imagenet, none or a file; got $weights" ;;
esac
[ ! -e "$out" ] || [ -e "$out/.made-by-demo" ] ||
  fail "OUT: wanted a new folder or one of an earlier demo; got $out; remove it or choose another"
mkdir -p "$out"
out=$(cd "$out" && pwd)
exec 9>"$out/.made-by-demo"
flock --nonblock 9 || fail "OUT: another demo runs in $out"
# Other files in the folder are not those of a demo, and stay.
rm -rf "$out"/{labelled,unlabelled,warehouse,model,predictions.png}

if [ -n "$data" ]; then
  labelled=$data
else
  step "1. Generate a labelled folder, and an unlabelled folder with some broken files"
  labelled=$out/labelled
  "$bin/eagle" sample --out "$labelled" --images 180 --seed 7 \
    --unlabelled-out "$out/unlabelled" --unlabelled 60
fi

step "2. preprocess: load Excel metadata and images into the table eagle.cxr.images"
job preprocess --input "$labelled" --warehouse "$out/warehouse"
if [ -n "$data" ]; then
  # Images to score: patients outside of the training data, and two broken files.
  "$bin/eagle" link-test --warehouse "$out/warehouse" --out "$out/unlabelled"
  : >"$out/unlabelled/empty.png"
  echo "no image" >"$out/unlabelled/text.png"
fi

step "3. train: two ranks in a Spark barrier stage"
if [ "$weights" = imagenet ] && ! "$bin/python" - >/dev/null 2>&1 <<'END'; then
from eagle_spark.model.weights import fetch_weights
with fetch_weights("imagenet"):
    pass
END
  printf '\nWARNING: the ImageNet weights cannot be downloaded; random weights give a poor model.\n' >&2
  printf 'Set WEIGHTS=PATH of a MobileNetV2 weights file for a real model.\n\n' >&2
  weights=none
fi
job train --warehouse "$out/warehouse" --model "$out/model" --ranks 2 --weights "$weights"

step "4. score: every image of the unlabelled folder"
job score --images "$out/unlabelled" --model "$out/model" --warehouse "$out/warehouse" ||
  [ $? = 3 ]  # published, but needs attention

step "5. SQL over the predictions, and an image"
"$bin/eagle" gallery --warehouse "$out/warehouse" --out "$out/predictions.png"
printf '\nImage: %s\nSQL shell: make sql WAREHOUSE=%s\nDone in %d s. Research use only.\n' \
  "$out/predictions.png" "$out/warehouse" "$((SECONDS - started))"
