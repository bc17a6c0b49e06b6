#!/usr/bin/env bash
# Open spark-sql on the tables of a warehouse; further arguments go to spark-sql (-f FILE, -e SQL).
set -euo pipefail
warehouse=$1
case $warehouse in *://*) ;; *) warehouse=file://$(realpath -m "$warehouse") ;; esac
exec "$(dirname "$0")/../../.venv/bin/spark-sql" \
  --conf spark.sql.catalogImplementation=in-memory \
  --conf spark.sql.catalog.eagle=org.apache.iceberg.spark.SparkCatalog \
  --conf spark.sql.catalog.eagle.type=hadoop \
  --conf "spark.sql.catalog.eagle.warehouse=$warehouse" \
  --conf spark.sql.defaultCatalog=eagle \
  --conf spark.ui.enabled=false \
  --database cxr "${@:2}"
