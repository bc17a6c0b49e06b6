"""Iceberg's Java API by py4j: branches, commits of files and tables, as SQL sees them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from py4j.protocol import Py4JJavaError

from eagle_spark.errors import AuditError, CommitConflictError
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS, TABLES, Warehouse, commits, iceberg, manifests
from eagle_spark.tables.commits import retry_commit
from eagle_spark.tables.data_files import DataFileRef, WrittenFile
from eagle_spark.tables.iceberg import IcebergTable, create_namespace
from eagle_spark.tables.schema import NAMESPACE, Column, Table

ICEBERG = "org.apache.iceberg"
NOTES = Table(
    "notes",
    "a table of these tests",
    (
        Column("path", "STRING", "of the note"),
        Column("label", "STRING", "of the note", nullable=True),
        Column("number", "INT", "of the note"),
    ),
)
BY_LABEL = replace(NOTES, partitioned_by=("label", "number"))
MODIFIERS = {"public", "abstract", "static", "default", "final", "synchronized"}
# Package and class below org.apache.iceberg -> the methods that this package calls.
SIGNATURES = {
    "spark.Spark3Util": (
        "Table loadIcebergTable(SparkSession,String)",
        "Catalog loadIcebergCatalog(SparkSession,String)",
    ),
    "spark.SparkCatalog": (
        "boolean namespaceExists(String[])",
        "void createNamespace(String[],Map)",
    ),
    "spark.SparkSchemaUtil": ("Schema convert(StructType)", "StructType convert(Schema)"),
    "catalog.Catalog": (
        "boolean tableExists(TableIdentifier)",
        "Catalog$TableBuilder buildTable(TableIdentifier,Schema)",
    ),
    "catalog.Catalog$TableBuilder": (
        "Catalog$TableBuilder withPartitionSpec(PartitionSpec)",
        "Catalog$TableBuilder withProperty(String,String)",
        "Table create()",
    ),
    "catalog.TableIdentifier": ("TableIdentifier parse(String)",),
    "Table": (
        "void refresh()",
        "Schema schema()",
        "PartitionSpec spec()",
        "SortOrder sortOrder()",
        "Map properties()",
        "String location()",
        "Map refs()",
        "Snapshot snapshot(long)",
        "Snapshot snapshot(String)",
        "AppendFiles newAppend()",
        "TableScan newScan()",
        "UpdateProperties updateProperties()",
        "ManageSnapshots manageSnapshots()",
        "EncryptionManager encryption()",
        "FileIO io()",
        "LocationProvider locationProvider()",
    ),
    "SnapshotRef": ("boolean isBranch()",),
    "Snapshot": ("long snapshotId()", "Long parentId()", "Map summary()"),
    "ManageSnapshots": (
        "ManageSnapshots createBranch(String)",
        "ManageSnapshots createBranch(String,long)",
        "ManageSnapshots removeBranch(String)",
        "ManageSnapshots replaceBranch(String,String)",
        "ManageSnapshots fastForwardBranch(String,String)",
        "void commit()",
    ),
    "AppendFiles": (
        "AppendFiles appendFile(DataFile)",
        "Object toBranch(String)",
        "Object set(String,String)",
        "void commit()",
    ),
    "UpdateProperties": ("UpdateProperties set(String,String)", "void commit()"),
    "DataFiles": ("DataFiles$Builder builder(PartitionSpec)",),
    "DataFiles$Builder": (
        "DataFiles$Builder withPath(String)",
        "DataFiles$Builder withFileSizeInBytes(long)",
        "DataFiles$Builder withFormat(String)",
        "DataFiles$Builder withMetrics(Metrics)",
        "DataFiles$Builder withPartitionValues(List)",
        "DataFile build()",
    ),
    "parquet.ParquetUtil": ("Metrics fileMetrics(InputFile,MetricsConfig)",),
    "MetricsConfig": ("MetricsConfig forTable(Table)",),
    "Metrics": ("Long recordCount()",),
    "io.FileIO": ("InputFile newInputFile(String)",),
    "io.InputFile": ("long getLength()", "SeekableInputStream newStream()"),
    "io.LocationProvider": ("String newDataLocation(String)",),
    "SchemaParser": ("String toJson(Schema)",),
    "PartitionSpec": ("PartitionSpec$Builder builderFor(Schema)", "List fields()"),
    "PartitionSpec$Builder": (
        "PartitionSpec$Builder identity(String)",
        "PartitionSpec build()",
    ),
    "PartitionField": ("int sourceId()", "Transform transform()"),
    "SortOrder": ("boolean isUnsorted()",),
    "Schema": ("String findColumnName(int)", "Types$NestedField findField(String)"),
    "types.Types$NestedField": ("int fieldId()",),
    "TableScan": (
        "TableScan useSnapshot(long)",
        "Object filter(Expression)",
        "Object includeColumnStats(Collection)",
        "CloseableIterable planFiles()",
    ),
    "expressions.Expressions": (
        "UnboundPredicate equal(String,Object)",
        "UnboundPredicate startsWith(String,String)",
        "UnboundPredicate isNull(String)",
        "Expression or(Expression,Expression)",
    ),
    "ScanTaskParser": ("String toJson(FileScanTask)",),
}


@pytest.fixture
def warehouse(spark: Any, tmp_path: Path) -> Iterator[Warehouse]:
    with open_session("test", str(tmp_path / "a warehouse")) as session:
        yield Warehouse(session)


def create(warehouse: Warehouse, table: Table = NOTES) -> IcebergTable:
    warehouse.create_or_migrate(table)
    return warehouse.iceberg(table)


def insert(warehouse: Warehouse, *paths: str, branch: str = "main") -> None:
    rows = [(path, "a", 1) for path in paths]
    warehouse.append(NOTES, warehouse.spark.createDataFrame(rows, NOTES.schema()), branch)


def paths(warehouse: Warehouse, branch: str = "main") -> list[str]:
    return sorted(row.path for row in warehouse.read(NOTES, branch).collect())


def write(table: IcebergTable, *rows: tuple[str, str | None, int]) -> WrittenFile:
    """Write a data file as a worker does; label and number are the partition of `BY_LABEL`."""
    description = table.describe()
    types = {"string": pa.string(), "int": pa.int32()}
    schema = pa.schema(
        pa.field(
            field["name"],
            types[field["type"]],
            not field["required"],
            {b"PARQUET:field_id": str(field["id"]).encode()},
        )
        for field in json.loads(description.schema)["fields"]
    )
    values = [dict(zip(schema.names, row, strict=True)) for row in rows]
    assert description.data_location is not None
    uri = f"{description.data_location}{rows[0][0]}-{time.time_ns()}.parquet"
    path = Path(uri.removeprefix("file:"))
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(values, schema=schema), path, store_schema=False)
    _, label, number = rows[0]
    partition = (label, str(number)) if description.partition else ()
    return WrittenFile(uri, path.stat().st_size, len(rows), partition)


def metadata_version(folder: Path) -> int:
    """Return the number of the newest metadata file of `notes`."""
    return max(int(file.name[1:].split(".")[0]) for file in folder.rglob("v*.metadata.json"))


@pytest.mark.spark
def test_the_methods_of_iceberg_have_the_expected_signatures(spark: Any) -> None:
    loader = spark.sparkContext._jvm.java.lang.Thread.currentThread().getContextClassLoader()
    for name, wanted in SIGNATURES.items():
        methods = loader.loadClass(f"{ICEBERG}.{name}").getMethods()
        texts = (re.sub(r"[\w$]+\.", "", method.toString()).partition(")")[0] for method in methods)
        present = {
            " ".join(word for word in text.split() if word not in MODIFIERS) + ")" for text in texts
        }
        assert present >= set(wanted), name


@pytest.mark.spark
def test_branches_of_a_table_without_rows_are_created_and_dropped(warehouse: Warehouse) -> None:
    table = create(warehouse)
    assert (table.branches(), table.head(), table.snapshot_id()) == (set(), None, None)
    for _ in range(2):  # the second replaces the first
        table.create_branch("run")
        head = table.head("run")
        assert head is not None
        assert head.parent_id is None
        assert table.branches() == {"run"}
    insert(warehouse, "a", branch="run")
    table.publish("run")
    assert (table.branches(), paths(warehouse)) == ({"main"}, ["a"])
    table.drop_branch("run")


@pytest.mark.spark
def test_branches_of_a_table_with_rows_begin_where_they_are_created(warehouse: Warehouse) -> None:
    table = create(warehouse)
    insert(warehouse, "a")
    first = table.snapshot_id()
    insert(warehouse, "b")
    second = table.snapshot_id()
    assert table.ancestor_ids(second) == [second, first]
    assert table.ancestor_ids(None) == []
    warehouse.spark.sql(f"ALTER TABLE {NOTES.full_name} CREATE TAG audit_2026")
    table.create_branch("now")
    table.create_branch("before", first)
    assert table.branches() == {"main", "now", "before"}
    assert (table.snapshot_id("now"), table.snapshot_id("before")) == (second, first)
    assert paths(warehouse, "before") == ["a"]
    table.replace_branch("now", "before")
    assert (table.branches(), table.snapshot_id("now")) == ({"main", "now"}, first)


@pytest.mark.spark
def test_one_commit_moves_main_and_drops_the_branch(warehouse: Warehouse, tmp_path: Path) -> None:
    table = create(warehouse)
    insert(warehouse, "a")
    table.create_branch("run")
    insert(warehouse, "b", branch="run")
    before, published = metadata_version(tmp_path), table.snapshot_id("run")
    table.publish("run")
    assert metadata_version(tmp_path) == before + 1
    assert (table.branches(), table.snapshot_id()) == ({"main"}, published)
    assert paths(warehouse) == ["a", "b"]


@pytest.mark.spark
def test_a_branch_that_equals_main_is_published_without_a_change(warehouse: Warehouse) -> None:
    """As version 0.1 leaves it that is killed between its two commits."""
    table = create(warehouse)
    insert(warehouse, "a")
    table.create_branch("run")
    before = table.snapshot_id()
    table.publish("run")
    assert (table.branches(), table.snapshot_id()) == ({"main"}, before)


@pytest.mark.spark
def test_a_branch_without_the_newest_commit_of_main_is_not_published(warehouse: Warehouse) -> None:
    table = create(warehouse)
    insert(warehouse, "a")
    table.create_branch("run")
    insert(warehouse, "b", branch="run")
    insert(warehouse, "c")
    with pytest.raises(CommitConflictError, match=r"another run published to eagle\.cxr\.notes"):
        table.publish("run")
    assert (table.branches(), paths(warehouse)) == ({"main", "run"}, ["a", "c"])


@pytest.mark.spark
def test_properties_are_committed_without_rows(warehouse: Warehouse) -> None:
    table = create(warehouse)
    insert(warehouse, "a")
    table.create_branch("run")
    before = table.snapshot_id("run")
    sealed = table.commit_properties("run", {"eagle.run": '{"é": "x\\ny"}'})
    assert (sealed, sealed.parent_id) == (table.head("run"), before)
    assert sealed.summary["eagle.run"] == '{"é": "x\\ny"}'
    assert sealed.summary["spark.app.id"] == warehouse.spark.sparkContext.applicationId
    assert sealed.summary["total-records"] == "1"


@pytest.mark.spark
def test_two_threads_change_branches_at_the_same_time(warehouse: Warehouse) -> None:
    table = create(warehouse)
    insert(warehouse, "a")

    def change(name: str) -> None:
        for number in range(10):
            table.create_branch(f"{name}{number}")
            table.drop_branch(f"{name}{number - 1}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(change, "ab"))
    assert table.branches() == {"main", "a9", "b9"}


@pytest.mark.spark
def test_sql_sees_commits_after_the_catalog_has_dropped_its_handle(
    spark: Any, tmp_path: Path
) -> None:
    with open_session("test", str(tmp_path)) as session:
        session.conf.set("spark.sql.catalog.eagle.cache.expiration-interval-ms", "100")
        warehouse = Warehouse(session)
        table = create(warehouse)
        for name in "abc":
            insert(warehouse, name)
            table.create_branch(name)
            time.sleep(0.2)
            insert(warehouse, f"{name}2", branch=name)
            time.sleep(0.2)
            table.append_files(name, [write(table, (f"{name}3", "a", 1))], {})
            assert f"{name}3" in paths(warehouse, name)
            table.publish(name)
            assert paths(warehouse)[-3:] == [name, f"{name}2", f"{name}3"]


class Thrown(SimpleNamespace):
    """An exception of Java."""

    _target_id = "o1"

    def __str__(self) -> str:
        return str(self.text)


@pytest.mark.parametrize(
    ("text", "times", "calls"),
    [
        ("org.apache.iceberg.exceptions.CommitFailedException: refresh is required", 9, 10),
        ("org.apache.iceberg.exceptions.CommitFailedException: refresh is required", 10, 10),
        ("java.io.IOException: no space", 1, 1),
    ],
)
def test_a_commit_is_repeated_after_a_conflict(
    text: str, times: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "FIRST_WAIT_SECONDS", 0.0)
    tries = []

    def commit() -> str:
        tries.append(1)
        if len(tries) <= times:
            raise Py4JJavaError("", Thrown(text=text))
        return "done"

    with nullcontext() if times < calls else pytest.raises(Py4JJavaError):
        assert retry_commit(commit) == "done"
    assert len(tries) == calls


@pytest.mark.spark
def test_files_are_appended_with_the_figures_of_their_footers(warehouse: Warehouse) -> None:
    table = create(warehouse)
    insert(warehouse, "a")
    table.create_branch("run")
    files = [write(table, ("b", "x", 5), ("c", None, 7)), write(table, ("d", "y", 9))]
    snapshot = table.append_files("run", files, {"eagle.run_id": "r1"})
    assert snapshot == table.head("run")
    assert snapshot.parent_id == table.snapshot_id()
    figures = ("added-records", "added-data-files", "total-records", "eagle.run_id", "spark.app.id")
    application = warehouse.spark.sparkContext.applicationId
    assert [snapshot.summary[name] for name in figures] == ["3", "2", "4", "r1", application]
    assert (paths(warehouse), paths(warehouse, "run")) == (["a"], ["a", "b", "c", "d"])
    table.publish("run")
    entries = warehouse.spark.sql(
        "SELECT record_count, file_size_in_bytes, readable_metrics.number.lower_bound AS low, "
        "readable_metrics.number.upper_bound AS high, "
        f"readable_metrics.label.null_value_count AS nulls FROM {NOTES.full_name}.files "
        f"WHERE file_path = '{files[0].uri}'"
    ).collect()
    assert [tuple(entry) for entry in entries] == [(2, files[0].length, 5, 7, 1)]
    warehouse.delete(NOTES, "path = 'b'")
    assert paths(warehouse) == ["a", "c", "d"]


@pytest.mark.spark
def test_files_are_appended_to_their_partitions(warehouse: Warehouse) -> None:
    table = create(warehouse, BY_LABEL)
    assert table.describe().partition == (("label", "identity"), ("number", "identity"))
    files = [write(table, ("a", "x/y=z é", 1)), write(table, ("b", None, 2))]
    table.append_files("main", files, {})
    rows = warehouse.read(NOTES)
    assert [row.path for row in rows.where("label = 'x/y=z é' AND number = 1").collect()] == ["a"]
    assert [row.path for row in rows.where("label IS NULL AND number = 2").collect()] == ["b"]
    snapshot = table.snapshot_id()
    assert snapshot is not None
    planned = [DataFileRef(file.uri, file.length, file.rows) for file in files]
    assert table.plan_files(snapshot, {"label": "x/y=z é"}) == planned[:1]
    assert table.plan_files(snapshot, {}) == planned


@pytest.mark.spark
@pytest.mark.parametrize("change", [{"length": 7}, {"rows": 2}, {"uri": "file:/none.parquet"}])
def test_a_file_that_is_not_as_its_writer_returned_it_is_not_committed(
    warehouse: Warehouse, change: dict[str, Any]
) -> None:
    table = create(warehouse)
    table.create_branch("run")
    before = table.snapshot_id("run")
    file = replace(write(table, ("a", "x", 1)), **change)
    with pytest.raises(AuditError, match=f"data file {file.uri}"):
        table.append_files("run", [file], {})
    assert table.snapshot_id("run") == before


@pytest.mark.spark
def test_a_damaged_file_is_not_committed(warehouse: Warehouse) -> None:
    table = create(warehouse)
    file = write(table, ("a", "x", 1))
    path = Path(file.uri.removeprefix("file:"))
    path.write_bytes(bytes(file.length))
    with pytest.raises(AuditError, match=r"cannot be read: .*not a Parquet file"):
        table.append_files("main", [file], {})
    assert table.head() is None


@pytest.mark.spark
@pytest.mark.parametrize("branch", ["main", "run"])
def test_a_branch_has_one_writer_and_main_has_many(
    warehouse: Warehouse, branch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = create(warehouse)
    insert(warehouse, "a")
    if branch != "main":
        table.create_branch(branch)
    build_entries = manifests.build_entries

    def build_late(*arguments: Any) -> list[Any]:
        insert(warehouse, "of another run", branch=branch)
        return build_entries(*arguments)

    monkeypatch.setattr(iceberg, "build_entries", build_late)
    files = [write(table, ("b", "x", 1))]
    if branch == "main":
        table.append_files(branch, files, {})
        assert paths(warehouse) == ["a", "b", "of another run"]
    else:
        with pytest.raises(AuditError, match=r"branch run of eagle\.cxr\.notes: wanted a"):
            table.append_files(branch, files, {})


@pytest.mark.spark
def test_bounds_exclude_files_of_other_folders(warehouse: Warehouse) -> None:
    bounds = (("write.metadata.metrics.column.path", "full"),)
    table = create(warehouse, replace(NOTES, properties=bounds))
    folder = "hdfs://cluster/a/long/path/of/a/ward"
    for number in (1, 2):
        rows = [(f"{folder}-{number}/x.png", "x", number)]
        warehouse.append(NOTES, warehouse.spark.createDataFrame(rows, NOTES.schema()))
    snapshot = table.snapshot_id()
    assert snapshot is not None
    everything = table.plan_files(snapshot, {"label": "x"})
    assert everything is not None
    (one,) = table.plan_files(snapshot, {"label": "x"}, {"path": f"{folder}-1/"}) or ()
    assert len(everything) == 2
    assert one in everything
    assert table.plan_files(snapshot, {"label": "y"}) == []


@pytest.mark.spark
@pytest.mark.parametrize(
    "properties", [{"write.delete.mode": "merge-on-read"}, {"write.format.default": "orc"}]
)
def test_rows_that_files_alone_do_not_give_are_not_planned(
    warehouse: Warehouse, properties: dict[str, str]
) -> None:
    table = create(warehouse, replace(NOTES, properties=tuple(properties.items())))
    insert(warehouse, "a", "b")
    warehouse.delete(NOTES, "path = 'a'")
    snapshot = table.snapshot_id()
    assert snapshot is not None
    assert paths(warehouse) == ["b"]
    assert table.plan_files(snapshot, {}) is None


@pytest.mark.spark
def test_files_that_workers_cannot_read_are_not_planned(warehouse: Warehouse) -> None:
    table = create(warehouse)
    handle = table.load()
    builder = table._iceberg.DataFiles.builder(handle.spec()).withPath("s3://bucket/a.parquet")
    file = builder.withFileSizeInBytes(1).withRecordCount(1).withFormat("parquet").build()
    handle.newAppend().appendFile(file).commit()
    snapshot = table.snapshot_id()
    assert snapshot is not None
    assert table.plan_files(snapshot, {}) is None


def create_by_sql(warehouse: Warehouse, table: Table) -> None:
    """Create a table as versions before 0.2 did."""
    properties = {"format-version": "2", **table.table_properties}
    listed = ", ".join(f"'{key}'='{value}'" for key, value in properties.items())
    by = ", ".join(table.partitioned_by)
    partition = f"PARTITIONED BY ({by})" if by else ""
    warehouse.spark.sql(
        f"CREATE TABLE IF NOT EXISTS {table.full_name} "
        f"({', '.join(column.ddl for column in table.columns)}) USING iceberg {partition} "
        f"COMMENT '{table.comment}' TBLPROPERTIES ({listed})"
    )


@pytest.mark.spark
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_created_table_equals_that_of_sql(warehouse: Warehouse, table: Table) -> None:
    other = replace(table, name=f"{table.name}_by_sql")
    create_by_sql(warehouse, other)
    made, wanted = create(warehouse, table).describe(), warehouse.iceberg(other).describe()
    properties = {key: text for key, text in wanted.properties.items() if key != "owner"}
    place = {"location": made.location, "data_location": made.data_location}
    assert made == replace(wanted, properties=properties, **place)
    assert made.data_location == f"{made.location}/data/"
    assert not made.is_encrypted
    assert not made.is_sorted


@pytest.mark.spark
def test_a_table_that_another_job_creates_first_is_taken(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(warehouse)
    insert(warehouse, "a")
    monkeypatch.setattr(IcebergTable, "exists", lambda _: False)
    warehouse.create_or_migrate(NOTES)
    assert paths(warehouse) == ["a"]
    create_namespace(warehouse.spark, NAMESPACE.removeprefix("eagle."))


@pytest.mark.spark
def test_predictions_of_an_older_version_get_property_and_fields(warehouse: Warehouse) -> None:
    """The table of version 0.1: no property of `path`, and no field `intent` in `dicom`."""
    columns = (
        replace(one, type=one.type.replace(", intent: STRING", "")) if one.name == "dicom" else one
        for one in PREDICTIONS.columns
    )
    older = replace(PREDICTIONS, columns=tuple(columns), properties=())
    create_by_sql(warehouse, older)
    values = {
        "path": "p",
        "file_length": 1,
        "file_modified": datetime(2026, 1, 1, tzinfo=timezone.utc),
        "status": "rejected",
        "model_id": "m",
        "run_id": "r",
        "scored_at": datetime(2026, 1, 1, tzinfo=timezone.utc),
    }
    row = tuple(values.get(column.name) for column in older.columns)
    warehouse.append(older, warehouse.spark.createDataFrame([row], older.schema()))
    warehouse.spark.sql(
        f"ALTER TABLE {older.full_name} SET TBLPROPERTIES ('write.distribution-mode'='hash')"
    )
    for _ in range(2):
        table = create(warehouse, PREDICTIONS)
    properties = table.describe().properties
    assert properties["write.metadata.metrics.column.path"] == "full"
    assert properties["write.distribution-mode"] == "hash"  # of the site
    assert [row.path for row in warehouse.read(PREDICTIONS).collect()] == ["p"]
