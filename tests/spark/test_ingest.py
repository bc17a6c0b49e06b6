"""The preprocess job: every listed file and row is accepted, or rejected with a reason."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook
from PIL import Image

from eagle_spark.datasets.ingest import preprocess
from eagle_spark.datasets.synthetic.sample import write_sample
from eagle_spark.errors import (
    CommitConflictError,
    FailureRateError,
    InputError,
    OutputError,
    Reason,
    WorkbookError,
)
from eagle_spark.imaging.mask import decode_mask
from eagle_spark.settings import PreprocessSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, RUNS, Warehouse
from eagle_spark.tables.branch import Branch
from tests.helpers.sample_images import (
    EXPECTED_REASONS,
    SAMPLE_IMAGES,
    encode_image,
    make_tinted,
    write_file,
)

pytestmark = pytest.mark.spark

REJECTED_ROWS = f"SELECT * FROM {IMAGES.full_name} WHERE status = 'rejected'"
HEADER = ("FILE NAME", "FORMAT", "SIZE", "URL", "PATIENT ID", "WARD")


def run(folder: Path, warehouse: Path, **options: Any) -> dict[str, Any]:
    settings = PreprocessSettings(input=str(folder), warehouse=str(warehouse), **options)
    return asdict(preprocess(settings))


def query(warehouse: Path, sql: str) -> list[Any]:
    with open_session("test", str(warehouse)) as session:
        return session.sql(sql).collect()


def workbook(path: Path, *rows: tuple[object, ...], header: tuple[str, ...] = HEADER) -> None:
    book = Workbook()
    for row in (header, *rows):
        book.active.append(row)
    book.save(path)


def full_mask(side: int = 64) -> bytes:
    return encode_image(Image.new("L", (side, side), 255), "PNG")


@pytest.fixture(scope="module", params=["files", "spark"])
def sample(
    spark: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, Path, dict[str, Any]]:
    """A sample set and the warehouse and figures of its first run, by each writer."""
    place = tmp_path_factory.mktemp("sample")
    folder, warehouse = place / "a set", place / "warehouse"
    write_sample(folder, 60, 3)
    return folder, warehouse, run(folder, warehouse, size=96, writer=request.param)


def test_every_image_of_an_intact_set_is_accepted(
    sample: tuple[Path, Path, dict[str, Any]],
) -> None:
    folder, warehouse, result = sample
    assert (result["listed"], result["accepted"], result["rejected"]) == (60, 60, 0)
    assert result["masks"] == 60
    assert result["without_metadata"] == 0
    assert sum(result["by_class"].values()) == sum(result["by_split"].values()) == 60
    rows = query(warehouse, f"SELECT * FROM {IMAGES.full_name}")
    assert Counter(row.label for row in rows) == result["by_class"]
    assert Counter(row.split for row in rows) == result["by_split"]
    for row in rows:
        assert len(row.pixels) == 96 * 96
        assert decode_mask(row.mask).shape == (96, 96)
        assert (row.width, row.height) == (299, 299)
        assert row.source == "a set"
        assert row.metadata["SIZE"] == "256*256"
        assert Path(row.path.removeprefix("file://")).is_relative_to(folder)


def test_no_patient_and_no_copy_is_in_two_splits(sample: tuple[Path, Path, dict[str, Any]]) -> None:
    for column in ("patient_id", "image_id"):
        sql = f"SELECT {column} FROM {IMAGES.full_name} GROUP BY 1 HAVING count(DISTINCT split) > 1"
        assert query(sample[1], sql) == []


def test_the_same_input_again_changes_nothing(sample: tuple[Path, Path, dict[str, Any]]) -> None:
    folder, warehouse, first = sample
    again = run(folder, warehouse, size=96)
    same = ("listed", "accepted", "rejected", "by_class", "by_split", "masks", "snapshot_id")
    assert again["audited"] == 60
    assert {key: again[key] for key in same} == {key: first[key] for key in same}
    assert again["new_or_changed"] == 0
    runs = query(warehouse, f"SELECT run_id FROM {RUNS.full_name} WHERE job = 'preprocess'")
    assert {first["run_id"], again["run_id"]} <= {row.run_id for row in runs}


@pytest.mark.slow("three runs of preprocess")
def test_a_second_input_is_added_and_changed_files_are_replaced(
    sample: tuple[Path, Path, dict[str, Any]], tmp_path: Path, writer: str
) -> None:
    folder, warehouse = tmp_path / "more", tmp_path / "warehouse"
    options = {"size": 96, "source": "elsewhere", "writer": writer}
    shutil.copytree(sample[1], warehouse)
    for number in range(4):
        write_file(folder / "Normal" / "images" / f"n{number}.png", make_tinted(number))
    added = run(folder, warehouse, **options)
    assert (added["accepted"], added["masks"], added["without_metadata"]) == (4, 0, 4)
    write_file(folder / "Normal" / "images" / "n0.png", make_tinted(40))
    write_file(folder / "Normal" / "images" / "n1.png", b"")
    changed = run(folder, warehouse, **options)
    assert (changed["accepted"], changed["rejected"], changed["new_or_changed"]) == (3, 1, 1)
    write_file(folder / "Normal" / "images" / "n1.png", make_tinted(50))
    mended = run(folder, warehouse, **options)
    assert (mended["accepted"], mended["rejected"], mended["new_or_changed"]) == (4, 0, 1)
    rows = query(warehouse, f"SELECT source, count(*) AS n FROM {IMAGES.full_name} GROUP BY 1")
    assert {row.source: row.n for row in rows} == {"a set": 60, "elsewhere": 4}
    assert query(warehouse, REJECTED_ROWS) == []


def test_another_size_is_refused_and_nothing_is_lost(
    sample: tuple[Path, Path, dict[str, Any]],
) -> None:
    folder, warehouse, _ = sample
    with pytest.raises(OutputError, match="`size` 128: the table images holds images of side 96"):
        run(folder, warehouse, size=128)
    assert query(warehouse, f"SELECT count(*) AS n FROM {IMAGES.full_name}")[0].n == 60


def write_sample_set(folder: Path) -> dict[str, Reason | None]:
    """Write a set with every defect; return name -> reason of the rejection, None if accepted."""
    expected: dict[str, Reason | None] = {}
    images, masks = folder / "COVID" / "images", folder / "COVID" / "masks"

    def plant(name: str, data: bytes, reason: Reason | None, mask: bytes | None = b"own") -> None:
        write_file(images / name, data)
        expected[name] = reason
        if mask is not None:
            write_file(masks / f"{Path(name).stem}.png", full_mask() if mask == b"own" else mask)

    for name, make in SAMPLE_IMAGES.items():
        stem, _, ending = name.rpartition(".")
        plant(f"planted {stem}.{ending}", make(), EXPECTED_REASONS[name])
    plant("mask of another size.png", make_tinted(1), None, full_mask(31))
    plant(
        "mask empty.png",
        make_tinted(2),
        Reason.MASK_EMPTY,
        encode_image(Image.new("L", (64, 64)), "PNG"),
    )
    plant("mask broken.png", make_tinted(3), Reason.MASK_INVALID, full_mask()[:40])
    plant("mask missing.png", make_tinted(4), Reason.MASK_MISSING, None)
    plant("ünï cödé  blank.png", make_tinted(5), None)
    plant("twice.png", make_tinted(6), Reason.AMBIGUOUS_FILE)
    plant("TWICE.jpg", make_tinted(7), Reason.AMBIGUOUS_FILE)
    (images / "loop.png").symlink_to(images / "loop.png")
    write_file(masks / "loop.png", full_mask())
    expected["loop.png"] = Reason.UNREADABLE
    plant("two labels.png", make_tinted(8), Reason.CONFLICTING_LABELS)
    write_file(folder / "Normal" / "images" / "the other label.png", make_tinted(8))
    expected["the other label.png"] = Reason.CONFLICTING_LABELS
    write_file(folder / "Normal" / "images" / "sound.png", make_tinted(9))
    expected["sound.png"] = None
    return expected


def test_every_sample_file_has_its_reason_and_the_counts_add_up(
    spark: Any, tmp_path: Path, writer: str
) -> None:
    folder, warehouse = tmp_path / "set", tmp_path / "warehouse"
    expected = write_sample_set(folder)
    workbook(
        folder / "COVID.metadata.xlsx",
        ("ÜNÏ CÖDÉ  BLANK  ", "PNG", "64*64", "url", 12, "a ward"),
        ("twice", "PNG", "64*64", "url", None, None),
        ("no such file", "PNG", "64*64", "url", None, None),
        ("../../etc/passwd", "PNG", "64*64", "url", None, None),
        (None, "PNG", "64*64", "url", None, None),
    )
    rows = {
        "#row=4": Reason.METADATA_WITHOUT_FILE,
        "#row=5": Reason.UNSAFE_NAME,
        "#row=6": Reason.BAD_METADATA_ROW,
    }
    result = run(folder, warehouse, size=64, writer=writer)
    assert result["listed"] == len(expected) + len(rows)
    assert result["listed"] == result["accepted"] + result["rejected"]
    found = {
        row.path.rsplit("/", 1)[-1].removeprefix("COVID.metadata.xlsx"): row.reason
        for row in query(
            warehouse,
            f"SELECT path, reason FROM {IMAGES.full_name}",
        )
    }
    assert found == {name: reason and str(reason) for name, reason in {**expected, **rows}.items()}
    (row,) = query(warehouse, f"SELECT * FROM {IMAGES.full_name} WHERE path LIKE '%blank.png'")
    assert (row.patient_id, row.metadata["WARD"]) == ("12", "a ward")
    assert result["by_reason"] == Counter(reason for reason in found.values() if reason)


def test_a_rejected_set_is_accepted_after_its_repair(
    spark: Any, tmp_path: Path, writer: str
) -> None:
    folder, warehouse = tmp_path / "set", tmp_path / "warehouse"
    write_file(folder / "COVID" / "images" / "a.png", b"")
    workbook(folder / "COVID.metadata.xlsx", ("gone", "PNG", "64*64", "url", None, None))
    result = run(folder, warehouse, size=64, writer=writer)
    assert (result["listed"], result["accepted"], result["rejected"]) == (2, 0, 2)
    write_file(folder / "COVID" / "images" / "a.png", make_tinted(1))
    workbook(folder / "COVID.metadata.xlsx", ("a", "PNG", "64*64", "url", None, None))
    result = run(folder, warehouse, size=64, writer=writer)
    assert (result["listed"], result["accepted"], result["rejected"]) == (1, 1, 0)
    assert query(warehouse, REJECTED_ROWS) == []


def test_one_of_two_concurrent_runs_is_published_and_the_other_fails(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = tmp_path / "warehouse"
    for name in ("one", "two"):
        for number in range(4):
            shade = make_tinted(number * 9 + len(name) * (name == "two"))
            write_file(tmp_path / name / "AB"[number % 2] / "images" / f"{number}.png", shade)
    original = Branch.publish
    inner: list[dict[str, Any]] = []

    def let_the_other_run_first(self: Branch, *steps: Any) -> Any:
        monkeypatch.setattr(Branch, "publish", original)
        inner.append(run(tmp_path / "two", warehouse, size=64))
        return self.publish(*steps)

    monkeypatch.setattr(Branch, "publish", let_the_other_run_first)
    with pytest.raises(CommitConflictError, match="run this job again"):
        run(tmp_path / "one", warehouse, size=64)
    assert inner[0]["accepted"] == 4
    assert query(warehouse, f"SELECT count(*) AS n FROM {IMAGES.full_name}")[0].n == 4
    assert run(tmp_path / "one", warehouse, size=64)["accepted"] == 4
    assert query(warehouse, f"SELECT count(*) AS n FROM {IMAGES.full_name}")[0].n == 8


def test_rows_of_the_former_table_of_rejects_move_into_images(spark: Any, tmp_path: Path) -> None:
    folder, warehouse = tmp_path / "set", tmp_path / "warehouse"
    write_file(folder / "COVID" / "images" / "a.png", b"")
    write_file(folder / "COVID" / "images" / "b.png", make_tinted(1))
    run(folder, warehouse, size=64)
    with open_session("test", str(warehouse)) as session:
        Warehouse(session)
        session.sql(
            "CREATE TABLE eagle.cxr.rejects USING iceberg AS SELECT path, label, source, reason, "
            "detail, run_id, ingested_at AS rejected_at FROM eagle.cxr.images "
            "WHERE status = 'rejected' UNION ALL SELECT 'file:///other/x.png', 'COVID', 'there', "
            "'truncated', 'cut', 'old-run', TIMESTAMP '2026-01-01' "
            "UNION ALL SELECT path, label, source, 'corrupt', 'of a killed run', 'old-run', "
            "TIMESTAMP '2026-01-01' FROM eagle.cxr.images WHERE status = 'accepted'"
        )
    result = run(folder, warehouse, size=64)
    assert (result["accepted"], result["rejected"]) == (1, 1)
    rows = {row.path.rsplit("/", 1)[-1]: row for row in query(warehouse, REJECTED_ROWS)}
    assert {name: row.reason for name, row in rows.items()} == {
        "a.png": "empty_file",
        "x.png": "truncated",
    }
    assert (rows["x.png"].run_id, rows["x.png"].ingested_at.isoformat()[:10]) == (
        "old-run",
        "2026-01-01",
    )
    with open_session("test", str(warehouse)) as session:
        assert not session.catalog.tableExists("eagle.cxr.rejects")


def test_a_former_table_of_rejects_without_rows_is_dropped(spark: Any, tmp_path: Path) -> None:
    folder, warehouse = tmp_path / "set", tmp_path / "warehouse"
    write_file(folder / "COVID" / "images" / "a.png", make_tinted(1))
    run(folder, warehouse, size=64)
    with open_session("test", str(warehouse)) as session:
        Warehouse(session)
        session.sql(
            "CREATE TABLE eagle.cxr.rejects (path STRING, label STRING, source STRING, "
            "reason STRING, detail STRING, run_id STRING, rejected_at TIMESTAMP) USING iceberg"
        )
    assert run(folder, warehouse, size=64)["accepted"] == 1
    with open_session("test", str(warehouse)) as session:
        assert not session.catalog.tableExists("eagle.cxr.rejects")


def test_too_many_failures_publish_nothing(spark: Any, tmp_path: Path) -> None:
    write_file(tmp_path / "set" / "COVID" / "images" / "a.png", make_tinted(1))
    write_file(tmp_path / "set" / "Normal" / "images" / "b.png", b"")
    with pytest.raises(FailureRateError, match="1 of 2 entries"):
        run(tmp_path / "set", tmp_path / "warehouse", max_failure_rate=0.4)
    assert query(tmp_path / "warehouse", f"SELECT * FROM {IMAGES.full_name}") == []


def test_an_invalid_workbook_stops_the_job_before_spark_starts(tmp_path: Path) -> None:
    write_file(tmp_path / "set" / "COVID" / "images" / "a.png", make_tinted(1))
    write_file(tmp_path / "set" / "COVID.metadata.xlsx", b"no workbook")
    with pytest.raises(WorkbookError, match=r"COVID\.metadata\.xlsx"):
        run(tmp_path / "set", tmp_path / "warehouse")
    assert not (tmp_path / "warehouse").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        run(tmp_path / "nowhere", tmp_path / "warehouse")


def test_a_killed_run_publishes_nothing_and_can_be_repeated(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    folder, warehouse = tmp_path / "set", tmp_path / "warehouse"
    for number in range(6):
        write_file(folder / "AB"[number % 2] / "images" / f"{number}.png", make_tinted(number * 9))
    with monkeypatch.context() as patch:

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Branch, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            run(folder, warehouse, size=64, writer=writer)
    assert query(warehouse, f"SELECT * FROM {IMAGES.full_name}") == []
    assert run(folder, warehouse, size=64, writer=writer)["accepted"] == 6
    assert query(warehouse, f"SELECT count(*) AS n FROM {IMAGES.full_name}")[0].n == 6
