#!/usr/bin/env bash
# Open spark-sql on the tables of a warehouse; further arguments go to spark-sql (-f FILE, -e SQL).
set -euo pipefail
warehouse=${1:?usage: open.sh WAREHOUSE [-e SQL | -f FILE]}
case $warehouse in *://*) ;; *) warehouse=file://$(realpath -m "$warehouse") ;; esac
if [[ $warehouse == file://* && ! -d ${warehouse#file://}/cxr ]]; then
  echo "error: no tables in $warehouse" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")/../.." && pwd)
views=(-i "$here/conf/sql/views.sql")
# Before the first score there is nothing to view.
[[ $warehouse == file://* && ! -d ${warehouse#file://}/cxr/predictions ]] && views=()
exec "$here/.venv/bin/spark-sql" \
  --conf spark.sql.catalogImplementation=in-memory \
  --conf spark.sql.catalog.eagle=org.apache.iceberg.spark.SparkCatalog \
  --conf spark.sql.catalog.eagle.type=hadoop \
  --conf "spark.sql.catalog.eagle.warehouse=$warehouse" \
  --conf spark.sql.defaultCatalog=eagle \
  --conf spark.ui.enabled=false \
  --database cxr "${views[@]}" "${@:2}"
