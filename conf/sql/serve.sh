#!/usr/bin/env bash
# Serve the tables of a warehouse by JDBC and ODBC until this process ends: Spark's Thrift server.
# It listens on this machine alone, without a password: see docs/how-to/sql.md.
set -euo pipefail
warehouse=${1:?usage: serve.sh WAREHOUSE [PORT]}
port=${2:-10000}
source "$(dirname "$0")/warehouse.sh"
# Client: .venv/bin/beeline -u jdbc:hive2://127.0.0.1:$port -i conf/sql/views.sql
exec "$here/.venv/bin/spark-submit" "${catalog[@]}" \
  --class org.apache.spark.sql.hive.thriftserver.HiveThriftServer2 --name "eagle_spark sql" \
  --conf spark.driver.host=127.0.0.1 \
  --conf spark.driver.bindAddress=127.0.0.1 \
  spark-internal \
  --hiveconf hive.server2.thrift.bind.host=127.0.0.1 \
  --hiveconf "hive.server2.thrift.port=$port"
