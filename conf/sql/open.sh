#!/usr/bin/env bash
# Open spark-sql on the tables of a warehouse; further arguments go to spark-sql (-f FILE, -e SQL).
set -euo pipefail
warehouse=${1:?usage: open.sh WAREHOUSE [-e SQL | -f FILE]}
source "$(dirname "$0")/warehouse.sh"
views=(-i "$here/conf/sql/views.sql")
# Before the first score there is nothing to view.
[[ $warehouse == file://* && ! -d ${warehouse#file://}/cxr/predictions ]] && views=()
exec "$here/.venv/bin/spark-sql" "${catalog[@]}" \
  --conf spark.sql.defaultCatalog=eagle --database cxr "${views[@]}" "${@:2}"
