"""The two writers of the rows of `preprocess`: data files by workers, and Spark."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from openpyxl import Workbook
from PIL import Image

from eagle_spark.datasets import ingest, write
from eagle_spark.datasets.changes import FACT_COLUMNS, hash_mask, hash_metadata, select_facts
from eagle_spark.datasets.ingest import preprocess
from eagle_spark.datasets.synthetic.sample import write_sample
from eagle_spark.datasets.write_files import WriteTask
from eagle_spark.errors import AuditError, SettingsError
from eagle_spark.settings import PreprocessSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, Warehouse
from eagle_spark.tables.branch import Branch
from tests.helpers.dicom_files import dicom
from tests.helpers.sample_images import encode_image, make_tinted, write_file
from tests.helpers.stage_bytes import list_stage_bytes

pytestmark = pytest.mark.spark

# Without the columns that differ between runs.
ROWS = f"SELECT * EXCEPT (run_id, ingested_at) FROM {IMAGES.full_name} ORDER BY path"
FILES = f"SELECT file_path FROM {IMAGES.full_name}.files"


def run(folder: Path, warehouse: Path, **options: Any) -> dict[str, Any]:
    given = {"size": 64, "input": str(folder), "warehouse": str(warehouse)} | options
    return asdict(preprocess(PreprocessSettings(**given)))


def query(warehouse: Path, sql: str = ROWS) -> list[Any]:
    with open_session("test", str(warehouse)) as session:
        return session.sql(sql).collect()


def list_data_files(warehouse: Path) -> set[str]:
    return {path.name for path in (warehouse / "cxr/images/data").rglob("*.parquet")}


def list_committed_files(warehouse: Path) -> set[str]:
    return {row.file_path.rsplit("/", 1)[-1] for row in query(warehouse, FILES)}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A set with workbooks, masks, DICOM, images without a mask, and rejects."""
    folder = tmp_path / "set"
    write_sample(folder, 18, 3)
    images = folder / "Normal" / "images"
    mask = encode_image(Image.new("L", (64, 64), 255), "PNG")
    for name, data in {
        "chest.dcm": dicom(WindowCenter="2048", WindowWidth="4096"),
        "empty.png": b"",
        "black.png": encode_image(Image.new("L", (64, 64)), "PNG"),
    }.items():
        write_file(images / name, data)
        write_file(folder / "Normal" / "masks" / f"{Path(name).stem}.png", mask)
    write_file(images / "no mask.png", make_tinted(1))
    write_file(folder / "Bare" / "images" / "a.png", make_tinted(2))
    write_file(folder / "Bare" / "images" / "b.png", make_tinted(30))
    return folder


def test_both_writers_write_the_same_rows(spark: Any, labelled: Path, tmp_path: Path) -> None:
    rows = {}
    for writer in ("files", "spark"):
        result = run(labelled, tmp_path / writer, writer=writer)
        assert result["listed"] == result["accepted"] + result["rejected"] == 24
        assert result["rejected"] == 3
        rows[writer] = query(tmp_path / writer)
    assert rows["files"] == rows["spark"]
    assert {row.split for row in rows["files"]} == {"train", "val", "test", None}


def test_workers_write_a_file_for_each_split(spark: Any, labelled: Path, tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse"
    result = run(labelled, warehouse, writer="files")
    names = list_data_files(warehouse)
    assert len(names) == 4
    assert all(name.startswith(result["run_id"]) for name in names)
    assert list_committed_files(warehouse) == names


def write_wards(path: Path, *wards: str) -> None:
    """Write a workbook with the ward of images 0.png, 1.png and so on."""
    book = Workbook()
    book.active.append(("FILE NAME", "FORMAT", "SIZE", "URL", "WARD"))
    for number, ward in enumerate(wards):
        book.active.append((f"{number}.png", "PNG", "64*64", "url", ward))
    book.save(path)


@pytest.mark.parametrize("change", ["mask", "metadata"])
def test_a_changed_mask_or_workbook_row_replaces_the_row(
    spark: Any, tmp_path: Path, writer: str, change: str
) -> None:
    folder, warehouse = tmp_path / "set", tmp_path / "warehouse"
    half = np.kron(np.eye(2, dtype=np.uint8), np.full((32, 32), 255, np.uint8))
    for number in range(4):
        name = f"{number}.png"
        write_file(folder / "A" / "images" / name, make_tinted(number * 9))
        write_file(folder / "A" / "masks" / name, encode_image(Image.fromarray(half), "PNG"))
    write_wards(folder / "A.metadata.xlsx", "x", "x", "x", "x")
    run(folder, warehouse, writer=writer)
    before = {row.path: row for row in query(warehouse)}
    path = (folder / "A" / "images" / "1.png").as_uri()
    if change == "mask":
        write_file(folder / "A" / "masks" / "1.png", encode_image(Image.fromarray(~half), "PNG"))
    else:
        write_wards(folder / "A.metadata.xlsx", "x", "y", "x", "x")
    result = run(folder, warehouse, writer=writer)
    assert (result["new_or_changed"], result["audited"]) == (1, 4)
    after = {row.path: row for row in query(warehouse)}
    assert after[path][change] != before.pop(path)[change]
    assert {key: row for key, row in after.items() if key != path} == before


def test_spark_and_python_compute_the_same_hashes(spark: Any) -> None:
    masks = [None, b"", b"\0\xff", b"mask"]
    metadata = [
        None,
        [],
        [("ward", None), ("größe", "5\u00a0é")],
        [("a", ""), ("b", "x\n"), ("c", "\U0001f9b4")],
    ]
    rows = pa.table(
        {
            **{name: pa.array(["x"] * 4) for name in (*FACT_COLUMNS, "split")},
            "mask": pa.array(masks, pa.binary()),
            "metadata": pa.array(metadata, pa.map_(pa.string(), pa.string())),
        }
    )
    facts = select_facts(spark.createDataFrame(rows))
    assert facts["mask_hash"].tolist() == list(map(hash_mask, masks))
    assert facts["metadata_hash"].tolist() == list(map(hash_metadata, metadata))
    assert facts["metadata_hash"].nunique() == 4


def test_a_retried_task_leaves_one_row_and_its_orphans(
    spark: Any, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"

    def fail_once(*arguments: Any) -> Any:
        task = WriteTask(*arguments)

        class Failing:
            layout, constants = task.layout, task.constants

            def __call__(self, staged: Any) -> Any:
                report = task(staged)
                if not mark.exists():
                    mark.touch()
                    raise OSError("lost after its files were written")
                return report

        return Failing()

    monkeypatch.setattr(write, "WriteTask", fail_once)
    warehouse = tmp_path / "warehouse"
    assert run(labelled, warehouse, writer="files")["accepted"] == 21
    assert mark.exists()
    assert Counter(row.path for row in query(warehouse)).most_common(1)[0][1] == 1
    assert len(list_data_files(warehouse) - list_committed_files(warehouse)) == 3


def test_no_pixel_passes_through_the_jvm(
    spark: Any, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ingest.failpoint
    stages: dict[str, list[int]] = {}

    def count_stages(name: str) -> None:
        stages[name] = list_stage_bytes(spark)
        before(name)

    monkeypatch.setattr(ingest, "failpoint", count_stages)
    run(labelled, tmp_path / "warehouse", size=512, writer="files")
    new = stages["written"][len(stages["before write"]) :]
    assert 0 < sum(new) < 512**2


def test_a_first_run_and_one_that_only_adds_are_audited_without_a_query(
    spark: Any, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, facts = write.write_changes, []

    def keep_facts(*arguments: Any) -> Any:
        facts.append(original(*arguments))
        return facts[-1]

    monkeypatch.setattr(ingest, "write_changes", keep_facts)
    warehouse = tmp_path / "warehouse"
    write_file(tmp_path / "more" / "A" / "images" / "a.png", make_tinted(50))
    assert run(labelled, warehouse, writer="files")["audited"] == 21
    assert run(tmp_path / "more", warehouse, writer="files")["audited"] == 22
    assert [len(one) for one in facts] == [21, 22]
    assert {*facts[1]["path"]} == {row.path for row in query(warehouse) if not row.reason}
    write_file(tmp_path / "more" / "A" / "images" / "a.png", make_tinted(70))
    assert run(tmp_path / "more", warehouse, writer="files")["audited"] == 22
    assert facts[2] is None


def test_a_row_in_another_split_is_not_committed(
    spark: Any, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = []

    def exchange(*arguments: Any) -> Any:
        task = WriteTask(*arguments)

        class Exchanging:
            layout, constants = task.layout, task.constants

            def __call__(self, staged: Any) -> Any:
                report = task(staged)
                rows = report.rows.to_pandas().assign(split="train")
                return type(report)(report.files, report.rows.from_pandas(rows))

        return Exchanging()

    monkeypatch.setattr(write, "WriteTask", exchange)
    monkeypatch.setattr(Branch, "append_files", lambda *files: commits.append(files))
    with pytest.raises(AuditError, match=r"wanted .*\.png in \w+ \d times; got it"):
        run(labelled, tmp_path / "warehouse", writer="files")
    assert commits == []


def test_spark_writes_a_table_that_a_site_partitions_in_its_own_way(
    spark: Any, labelled: Path, tmp_path: Path
) -> None:
    warehouse = tmp_path / "warehouse"
    with open_session("test", str(warehouse)) as session:
        Warehouse(session).create_or_migrate(IMAGES)
        session.sql(f"ALTER TABLE {IMAGES.full_name} ADD PARTITION FIELD label")
    with pytest.raises(SettingsError, match=r"`writer` must be auto or spark for .*partitioned"):
        run(labelled, warehouse, writer="files")
    result = run(labelled, warehouse)
    assert (result["accepted"], result["audited"]) == (21, 21)
    assert not any(name.startswith(result["run_id"]) for name in list_data_files(warehouse))
