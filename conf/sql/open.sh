#!/usr/bin/env bash
# Open spark-sql on the tables of a warehouse; further arguments go to spark-sql (-f FILE, -e SQL).
set -euo pipefail
warehouse=${1:?usage: open.sh WAREHOUSE [-e SQL | -f FILE]}
source "$(dirname "$0")/warehouse.sh"
views=$(mktemp --suffix=.sql)
trap 'rm -f "$views"' EXIT
PYTHONPATH=$here "$here/.venv/bin/python" "$here/conf/sql/select_views.py" "$warehouse" > "$views"
"$here/.venv/bin/spark-sql" "${catalog[@]}" \
  --conf spark.sql.defaultCatalog=eagle --database cxr -i "$views" "${@:2}"
