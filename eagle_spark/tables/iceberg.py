"""Tables through Iceberg's Java API, by py4j: no statement of SQL, no Spark job.

Spark's catalog drops a handle that nothing used for 30 s and loads another one; SQL then does not
see what is committed through the old one. So no handle is kept: each operation takes it from
Spark's catalog.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagle_spark.errors import AuditError, CommitConflictError
from eagle_spark.spark.session import CATALOG
from eagle_spark.tables.commits import retry_commit
from eagle_spark.tables.data_files import DataFileRef, WrittenFile
from eagle_spark.tables.manifests import build_entries, plan_entries
from eagle_spark.tables.schema import Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType

FORMAT_VERSION = "2"


@dataclass(frozen=True)
class Snapshot:
    """A commit of a table.

    Attributes:
        id: of the snapshot.
        parent_id: of the snapshot before it; None for the first.
        summary: what the commit did, and the properties that it was given.
    """

    id: int
    parent_id: int | None
    summary: Mapping[str, str]

    @property
    def rows(self) -> int | None:
        """The number of rows of the table's data files; None where the commit did not count it."""
        text = self.summary.get("total-records")
        return None if text is None else int(text)


@dataclass(frozen=True)
class TableDescription:
    """The facts about a table that a program needs to read and write its files without Java.

    Attributes:
        schema: Iceberg's schema with field ids, JSON.
        location: URI of the folder of the table.
        data_location: URI prefix of new data files, up to their name; None where the prefix depends
            on the name.
        partition: source column and transform of each partition field, in their order.
        is_sorted: whether the table has a sort order.
        is_encrypted: whether Iceberg encrypts the files.
        properties: of the table.
    """

    schema: str
    location: str
    data_location: str | None
    partition: tuple[tuple[str, str], ...]
    is_sorted: bool
    is_encrypted: bool
    properties: Mapping[str, str]


def create_namespace(spark: SparkSession, name: str) -> None:
    """Create a namespace of the catalog `eagle` if it is missing."""
    from pyspark.errors import AnalysisException

    gateway = spark.sparkContext._gateway
    assert gateway is not None
    parts = gateway.new_array(gateway.jvm.java.lang.String, 1)
    parts[0] = name
    catalog = _load_catalog(gateway.jvm.org.apache.spark.sql.classic.SparkSession, spark)
    if not catalog.namespaceExists(parts):
        try:
            catalog.createNamespace(parts, gateway.jvm.java.util.HashMap())
        except AnalysisException:
            if not catalog.namespaceExists(parts):  # else another job created it
                raise


def _load_catalog(sessions: Any, spark: SparkSession) -> Any:
    """Return Spark's catalog `eagle`.

    Spark loads a catalog once a session, with the settings of the session that is active then: in a
    process with several sessions another one may be.
    """
    session, active = spark._jsparkSession, sessions.getActiveSession()
    sessions.setActiveSession(session)
    try:
        return session.sessionState().catalogManager().catalog(CATALOG)
    finally:
        if active.isDefined():
            sessions.setActiveSession(active.get())
        else:
            sessions.clearActiveSession()


class IcebergTable:
    """A table of the catalog of a Spark session."""

    def __init__(self, spark: SparkSession, full_name: str) -> None:
        """Take the name of the table, catalog first; the table need not exist."""
        self.full_name = full_name
        self._spark = spark

    @property
    def _iceberg(self) -> Any:
        """Iceberg's Java package."""
        return self._spark.sparkContext._jvm.org.apache.iceberg  # type: ignore[union-attr]

    def _catalog(self) -> tuple[Any, Any]:
        """Return Iceberg's catalog, and the identifier of the table in it."""
        catalog, _, name = self.full_name.partition(".")
        identifier = self._iceberg.catalog.TableIdentifier.parse(name)
        session = self._spark._jsparkSession
        sessions = self._spark.sparkContext._jvm.org.apache.spark.sql.classic  # type: ignore[union-attr]
        _load_catalog(sessions.SparkSession, self._spark)
        return self._iceberg.spark.Spark3Util.loadIcebergCatalog(session, catalog), identifier

    def load(self) -> Any:
        """Return the Java handle of Spark's own catalog, refreshed, for one operation."""
        table = self._iceberg.spark.Spark3Util.loadIcebergTable(
            self._spark._jsparkSession, self.full_name
        )
        table.refresh()
        return table

    def exists(self) -> bool:
        """Return whether the catalog has the table."""
        catalog, identifier = self._catalog()
        return bool(catalog.tableExists(identifier))

    def create(self, definition: Table) -> None:
        """Create the table with columns, comments, partition and properties of its definition.

        A table of that name that exists remains as it is.
        """
        from py4j.protocol import Py4JJavaError

        types = self._spark.sparkContext._jvm.org.apache.spark.sql.types  # type: ignore[union-attr]
        columns = types.StructType.fromDDL(", ".join(column.ddl for column in definition.columns))
        schema = self._iceberg.spark.SparkSchemaUtil.convert(columns)
        partition = self._iceberg.PartitionSpec.builderFor(schema)
        for name in definition.partitioned_by:
            partition = partition.identity(name)
        catalog, identifier = self._catalog()
        builder = catalog.buildTable(identifier, schema).withPartitionSpec(partition.build())
        properties = {
            "format-version": FORMAT_VERSION,
            "comment": definition.comment,
            **definition.table_properties,
        }
        for key, value in properties.items():
            builder = builder.withProperty(key, value)
        try:
            builder.create()
        except Py4JJavaError as error:  # another job created it
            if "AlreadyExistsException" not in str(error.java_exception):
                raise

    def schema(self) -> StructType:
        """Return Spark's schema of the table."""
        from pyspark.sql.types import StructType

        schema = self._iceberg.spark.SparkSchemaUtil.convert(self.load().schema())
        return StructType.fromJson(json.loads(schema.json()))

    def set_missing_properties(self, properties: Mapping[str, str]) -> None:
        """Set properties that the table does not have; those that it has keep their values."""
        table = self.load()
        present = table.properties()
        missing = {key: text for key, text in properties.items() if not present.containsKey(key)}
        if missing:
            update = table.updateProperties()
            for key, text in missing.items():
                update = update.set(key, text)
            update.commit()

    def describe(self) -> TableDescription:
        """Return the facts that a program needs to read and write files of the table."""
        table = self.load()
        schema, fields = table.schema(), table.spec().fields()
        locations = table.locationProvider()
        first, second = (str(locations.newDataLocation(name))[:-1] for name in "ab")
        return TableDescription(
            schema=str(self._iceberg.SchemaParser.toJson(schema)),
            location=str(table.location()),
            data_location=first if first == second else None,
            partition=tuple(
                (schema.findColumnName(field.sourceId()), field.transform().toString())
                for field in fields
            ),
            is_sorted=not table.sortOrder().isUnsorted(),
            is_encrypted=_is_encrypted(table),
            properties=dict(table.properties()),
        )

    def read_bytes(self, uri: str) -> bytes:
        """Return the content of a small file, read as Iceberg reads the files of the table."""
        stream = self.load().io().newInputFile(uri).newStream()
        try:
            return bytes(stream.readAllBytes())
        finally:
            stream.close()

    def head(self, ref: str = "main") -> Snapshot | None:
        """Return the newest snapshot of a branch; None before its first commit."""
        snapshot = self.load().snapshot(ref)
        return None if snapshot is None else _read_snapshot(snapshot)

    def snapshot_id(self, ref: str = "main") -> int | None:
        """Return the id of the newest snapshot of a branch; None before its first commit."""
        return _snapshot_id(self.load(), ref)

    def ancestor_ids(self, snapshot: int | None) -> list[int]:
        """Return a snapshot and those before it that are not expired, the newest first."""
        table = self.load()
        ids = []
        while snapshot is not None and (present := table.snapshot(snapshot)) is not None:
            ids.append(snapshot)
            snapshot = present.parentId()
        return ids

    def heads(self) -> dict[str, int]:
        """Return branch to the id of its newest snapshot, of one moment and without tags."""
        refs = self.load().refs().items()
        return {str(name): int(ref.snapshotId()) for name, ref in refs if ref.isBranch()}

    def branches(self) -> set[str]:
        """Return the names of the branches, without tags."""
        return set(self.heads())

    def change_refs(self, change: Callable[[Any], Any]) -> None:
        """Commit a change of branches; repeat it if another run commits at the same moment.

        Args:
            change: takes Iceberg's `ManageSnapshots` and returns it with the changes.
        """
        retry_commit(lambda: change(self.load().manageSnapshots()).commit())

    def create_branch(self, name: str, snapshot: int | None = None) -> None:
        """Create a branch; an existing one of that name is dropped.

        Args:
            name: of the branch.
            snapshot: id of its newest snapshot; by default that of `main`, or a new one without
                rows if the table has none.
        """
        self.drop_branch(name)
        at = () if snapshot is None else (snapshot,)
        self.change_refs(lambda refs: refs.createBranch(name, *at))

    def drop_branch(self, name: str) -> None:
        """Drop a branch if it exists."""
        if name in self.branches():
            self.change_refs(lambda refs: refs.removeBranch(name))

    def replace_branch(self, name: str, source: str) -> None:
        """Move a branch to the snapshot of another one and drop that one, in one commit."""
        self.change_refs(lambda refs: refs.replaceBranch(name, source).removeBranch(source))

    def publish(self, branch: str) -> None:
        """Move `main` to a branch and drop the branch, in one commit.

        Raises:
            CommitConflictError: when `main` holds a commit that the branch does not.
        """
        from pyspark.errors import IllegalArgumentException

        try:
            self.change_refs(
                lambda refs: refs.fastForwardBranch("main", branch).removeBranch(branch)
            )
        except IllegalArgumentException as error:
            raise CommitConflictError(
                f"another run published to {self.full_name} in the meantime; run this job again"
            ) from error

    def commit_properties(self, branch: str, properties: Mapping[str, str]) -> Snapshot:
        """Commit a snapshot without rows; return it.

        Args:
            branch: of the commit.
            properties: for the summary of the snapshot.
        """
        return self._append(branch, (), properties)

    def append_files(
        self, branch: str, files: Sequence[WrittenFile], properties: Mapping[str, str]
    ) -> Snapshot:
        """Append data files in one commit; return its snapshot.

        Bounds and counts of the columns come from the footers of the files.

        Args:
            branch: of the commit. All branches but `main` have one writer.
            files: Parquet files with the field ids of the table.
            properties: for the summary of the snapshot.

        Raises:
            AuditError: when a file is missing, cannot be read, or has another length or number of
                rows; nothing is committed. Also when another run committed to the branch.
        """
        table = self.load()
        before = _snapshot_id(table, branch)
        snapshot = self._append(branch, build_entries(self._iceberg, table, files), properties)
        if branch != "main" and snapshot.parent_id != before:
            raise AuditError(
                f"branch {branch} of {self.full_name}: wanted a commit after snapshot {before}; "
                f"got one after {snapshot.parent_id}, of another run"
            )
        return snapshot

    def _append(
        self, branch: str, entries: Sequence[Any], properties: Mapping[str, str]
    ) -> Snapshot:
        application = {"spark.app.id": self._spark.sparkContext.applicationId}

        def commit() -> Any:
            table = self.load()
            append = table.newAppend().toBranch(branch)
            for key, value in {**application, **properties}.items():
                append = append.set(key, value)
            for entry in entries:
                append = append.appendFile(entry)
            append.commit()
            return table.snapshot(branch)

        return _read_snapshot(retry_commit(commit))

    def plan_files(
        self,
        snapshot: int,
        condition: Mapping[str, str],
        prefix: Mapping[str, str] | None = None,
        newest: str | None = None,
    ) -> list[DataFileRef] | None:
        """Return the data files of a snapshot that may hold rows of a condition.

        Args:
            snapshot: id.
            condition: column to the text that it has to equal; a timestamp in ISO 8601.
            prefix: column to the text that it has to begin with where it is not null.
            newest: timestamp column of `DataFileRef.newest`.

        Returns:
            The files, ordered by URI; None if rows cannot be read from the files alone, because
            some are deleted by delete files, some files are not Parquet or on another storage than
            the local disk and HDFS, or the table is encrypted.
        """
        table = self.load()
        if _is_encrypted(table):
            return None
        return plan_entries(self._iceberg, table, snapshot, condition, prefix or {}, newest)


def _is_encrypted(table: Any) -> bool:
    return str(table.encryption().getClass().getSimpleName()) != "PlaintextEncryptionManager"


def _snapshot_id(table: Any, ref: str) -> int | None:
    snapshot = table.snapshot(ref)
    return None if snapshot is None else int(snapshot.snapshotId())


def _read_snapshot(snapshot: Any) -> Snapshot:
    return Snapshot(int(snapshot.snapshotId()), snapshot.parentId(), dict(snapshot.summary()))
