#!/usr/bin/env bash
# Serve the tables of a warehouse by JDBC and ODBC until it is ended: Spark's Thrift server.
# Only this machine may connect, and nobody is asked for a password: see the README.
set -euo pipefail
warehouse=${1:?usage: serve.sh WAREHOUSE [PORT]}
port=${2:-10000}
case $warehouse in *://*) ;; *) warehouse=file://$(realpath -m "$warehouse") ;; esac
if [[ $warehouse == file://* && ! -d ${warehouse#file://}/cxr ]]; then
  echo "error: no tables in $warehouse" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")/../.." && pwd)
# Its client: .venv/bin/beeline -u jdbc:hive2://127.0.0.1:$port -i conf/sql/views.sql
exec "$here/.venv/bin/spark-submit" \
  --class org.apache.spark.sql.hive.thriftserver.HiveThriftServer2 --name "eagle_spark sql" \
  --conf spark.sql.catalogImplementation=in-memory \
  --conf spark.sql.extensions=org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions \
  --conf spark.sql.catalog.eagle=org.apache.iceberg.spark.SparkCatalog \
  --conf spark.sql.catalog.eagle.type=hadoop \
  --conf "spark.sql.catalog.eagle.warehouse=$warehouse" \
  --conf spark.driver.host=127.0.0.1 \
  --conf spark.driver.bindAddress=127.0.0.1 \
  --conf spark.ui.enabled=false \
  spark-internal \
  --hiveconf hive.server2.thrift.bind.host=127.0.0.1 \
  --hiveconf "hive.server2.thrift.port=$port"
