# open.sh and serve.sh source this file: it checks `warehouse` and sets `here` and `catalog`.
case $warehouse in *://*) ;; *) warehouse=file://$(realpath -m "$warehouse") ;; esac
if [[ $warehouse == file://* && ! -d ${warehouse#file://}/cxr ]]; then
  echo "error: no tables in $warehouse" >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
catalog=(
  --conf spark.sql.catalogImplementation=in-memory
  --conf spark.sql.catalog.eagle=org.apache.iceberg.spark.SparkCatalog
  --conf spark.sql.catalog.eagle.type=hadoop
  --conf "spark.sql.catalog.eagle.warehouse=$warehouse"
  --conf spark.ui.enabled=false
)
