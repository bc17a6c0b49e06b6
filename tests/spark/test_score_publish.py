"""Publication by the score job: kills, concurrent runs, failed audits and drift."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from eagle_spark.datasets.synthetic.sample import write_unlabelled
from eagle_spark.errors import (
    EXIT_NEEDS_ATTENTION,
    AuditError,
    FailureRateError,
    OutputError,
)
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.io.lock import AlreadyRunningError
from eagle_spark.scoring import chunks, job, monitor
from eagle_spark.scoring.context import ScoreRun
from eagle_spark.spark.batches import Worker
from eagle_spark.tables import RUNS, Warehouse
from eagle_spark.tables.branch import Branch
from tests.helpers.sample_images import encode_image
from tests.helpers.score_runs import (
    PREDICTION_ROWS,
    change_batches,
    die_at,
    is_balanced,
    list_valid_images,
    query,
)
from tests.helpers.tiny_model import reseal

pytestmark = [pytest.mark.spark, pytest.mark.train]

SECONDS = 60  # until a test that waits for another thread fails
RUN = f"SELECT result, model_id FROM {RUNS.full_name} WHERE run_id = '{{}}'"


@pytest.fixture
def reference_model(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model, with a reference distribution that differs from `images`."""
    monkeypatch.setattr(monitor, "MIN_IMAGES", 10)
    shutil.copytree(model_folder, tmp_path / "model")
    bins = {"edges": [2.0, 3.0], "shares": [0.0, 0.0, 1.0]}
    seen = {"images": 200, "label": {"A": 1.0}, "confidence": bins, "lung_area": bins}
    reseal(tmp_path / "model", reference=seen)
    return tmp_path / "model"


@pytest.mark.slow("four runs of score")
def test_drift_from_the_validation_split_is_reported(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    reference_model: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    usual = score()
    # This model has no reference distribution.
    assert (usual["drift"], usual["exit_code"]) == (None, 0)
    shutil.rmtree(tmp_path / "warehouse")
    blocked = tmp_path / "masks"
    blocked.mkdir()
    (blocked / "ward-a").write_bytes(b"")  # no folder
    with pytest.raises(OutputError, match=r"4 of 12 masks could not be written: .*ward-a") as ended:
        score(model=reference_model, masks_out=blocked)
    result: Any = ended.value.figures
    assert (result["masks_written"], result["masks_failed"]) == (8, 4)
    assert ended.value.exit_code == EXIT_NEEDS_ATTENTION
    assert result["drift"] == max(result["drift_by"]["training"].values()) > 1
    assert result["exit_code"] == EXIT_NEEDS_ATTENTION
    assert result["drift_from_recent_runs"] is None  # the first
    assert "lung_area of this run's images differs from the validation split" in caplog.text
    assert score(model=reference_model)["drift"] is None  # nothing new: that run was recorded
    write_unlabelled(images / "more", 12, 6)
    assert score(model=reference_model)["drift_from_recent_runs"] is not None


@pytest.mark.slow("five runs of score")
def test_an_unrecorded_run_is_recorded_by_the_next_run(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    reference_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = score(model=reference_model)
    shutil.rmtree(tmp_path / "warehouse")
    with monkeypatch.context() as patched:
        patched.setattr(Warehouse, "record_run", _fail)
        with pytest.raises(RuntimeError, match="killed"):
            score(model=reference_model)
    (killed,) = {row.run_id for row in query(tmp_path / "warehouse")}
    shutil.copytree(images, tmp_path / "others")
    elsewhere = score(model=reference_model, images=tmp_path / "others")
    assert elsewhere["published_run_ids"] == [elsewhere["run_id"]]
    (record,) = query(tmp_path / "warehouse", RUN.format(killed))
    figures = json.loads(record.result)
    assert (figures["scored"], figures["finished"], record.model_id) == (
        12,
        False,
        whole["model_id"],
    )
    again = score(model=reference_model)
    assert (again["already_scored"], again["scored"]) == (12, 0)
    assert again["drift_by"]["training"] == whole["drift_by"]["training"]
    assert again["flagged"] == whole["flagged"]
    assert again["exit_code"] == whole["exit_code"] == EXIT_NEEDS_ATTENTION
    quiet = score(model=reference_model)
    assert (quiet["published_run_ids"], quiet["drift"], quiet["exit_code"]) == ([], None, 0)


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("killed")


def test_a_second_attempt_on_yarn_repeats_the_drift_of_the_first(
    score: Callable[..., dict[str, Any]],
    images: Path,
    reference_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = score(model=reference_model)
    shutil.copy(list_valid_images(images)[0], images / "came_meanwhile.png")
    monkeypatch.setattr(monitor, "is_second_attempt", lambda _: True)
    second = score(model=reference_model)
    assert second["deduplicated"] == 1
    assert (second["drift_by"], second["exit_code"]) == (first["drift_by"], EXIT_NEEDS_ATTENTION)


@pytest.mark.slow("two runs of score")
def test_rows_replace_older_ones_after_another_commit_to_main(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = score()
    changed, other, *_ = list_valid_images(images)
    shutil.copy(other, changed)
    audited = job.audit_run
    moves = 0

    def then_main_moves(context: ScoreRun, *arguments: Any) -> Any:
        nonlocal moves
        result = audited(context, *arguments)
        moves += 1
        if moves == 1:
            context.spark.sql(
                "CALL eagle.system.rewrite_data_files(table => 'eagle.cxr.predictions', "
                "options => map('rewrite-all', 'true'))"
            )
        return result

    monkeypatch.setattr(job, "audit_run", then_main_moves)
    result = score(retry_rejected=True)
    assert moves == 2  # and audited again
    assert is_balanced(result)
    rows = {row.path: row for row in query(tmp_path / "warehouse")}
    assert len(rows) == len(query(tmp_path / "warehouse")) == 16
    fresh = {path for path, row in rows.items() if row.run_id == result["run_id"]}
    rejected = {path for path, row in rows.items() if row.status == "rejected"}
    assert fresh == {changed.as_uri(), *rejected}
    assert Counter(row.run_id for row in rows.values())[first["run_id"]] == 11
    assert rows[changed.as_uri()].image_id == rows[other.as_uri()].image_id


def test_a_second_run_at_the_same_time_fails_and_names_the_first(
    score: Callable[..., dict[str, Any]], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def while_it_runs(context: ScoreRun, *arguments: Any) -> Any:
        with pytest.raises(
            AlreadyRunningError, match=f"{context.run.run_id} on .* process {os.getpid()}"
        ):
            score()
        return original(context, *arguments)

    original = job.score_chunks
    monkeypatch.setattr(job, "score_chunks", while_it_runs)
    assert score()["scored"] == 12


def test_duplicate_rows_fail_the_audit_and_are_scored_again(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = job.score_chunks

    def twice(context: ScoreRun, branch: Branch, *arguments: Any) -> Any:
        appended = original(context, branch, *arguments)
        branch.append(branch.read())
        return appended

    with monkeypatch.context() as patch:
        patch.setattr(job, "score_chunks", twice)
        with pytest.raises(AuditError, match="listed 16 files"):
            score()
    result = score()
    assert is_balanced(result)
    assert result["scored"] == 12


@pytest.mark.slow("three runs of score of four chunks")
def test_a_run_killed_between_chunks_is_resumed(
    score: Callable[..., dict[str, Any]],
    images: Path,
    model_with_novelty: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: str,
) -> None:
    # The second chunk ends with an image, and the third begins with its copy.
    files = [path for path in images.rglob("*") if path.is_file()]
    image = sorted(files, key=lambda path: (path.stat().st_size, path))[9]
    shutil.copy(image, image.with_name(f"zz{image.suffix}"))
    options = {"model": model_with_novelty, "chunk": 5, "writer": writer}
    undisturbed = score(**options)
    wanted = query(tmp_path / "warehouse", PREDICTION_ROWS)
    shutil.rmtree(tmp_path / "warehouse")
    step = {"files": "score_files", "spark": "write_rows"}[writer]
    with monkeypatch.context() as patch:
        patch.setattr(chunks, step, die_at(3, getattr(chunks, step)))
        with pytest.raises(KeyboardInterrupt):
            score(**options)
    assert query(tmp_path / "warehouse") == []
    result = score(**options)
    assert is_balanced(result)
    assert (result["already_scored"], result["scored"], result["rejected"]) == (0, 13, 4)
    assert result["deduplicated"] == undisturbed["deduplicated"]
    rows = query(tmp_path / "warehouse")
    assert Counter(row.run_id == result["run_id"] for row in rows) == {False: 10, True: 7}
    assert len({row.path for row in rows}) == 17
    assert query(tmp_path / "warehouse", PREDICTION_ROWS) == wanted


@pytest.mark.slow("two runs of score of four chunks")
def test_a_failed_commit_keeps_the_chunks_before_it(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append, commits = Branch.append_files, 0

    def fail_at_the_second(branch: Branch, files: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == 2:
            raise AuditError("a data file is missing")
        append(branch, files)

    with monkeypatch.context() as patch:
        patch.setattr(Branch, "append_files", fail_at_the_second)
        with pytest.raises(AuditError, match="a data file is missing"):
            score(chunk=5)
    assert commits == 2  # none of the chunk that was scored meanwhile
    assert query(tmp_path / "warehouse") == []
    result = score(chunk=5)
    assert is_balanced(result)
    rows = query(tmp_path / "warehouse")
    assert Counter(row.run_id == result["run_id"] for row in rows) == {False: 5, True: 11}
    assert len({row.path for row in rows}) == 16


@pytest.mark.slow("two runs of score, one of three chunks")
def test_duplicates_are_filled_in_while_the_next_chunk_is_scored(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score()
    for number, image in enumerate(list_valid_images(images)[:6]):
        shutil.copy(image, images / f"copy-{number}.png")
    score_files, append = chunks.score_files, Branch.append_files
    started = [Event() for _ in range(4)]  # when a chunk is scored; the fourth is none
    started[3].set()
    calls = count()

    def score_chunk(*arguments: Any) -> Any:
        started[next(calls)].set()
        return score_files(*arguments)

    numbers = count(1)

    def wait_for_the_next_chunk(branch: Branch, files: Any) -> None:
        assert started[next(numbers)].wait(SECONDS)
        append(branch, files)

    monkeypatch.setattr(chunks, "score_files", score_chunk)
    monkeypatch.setattr(Branch, "append_files", wait_for_the_next_chunk)
    result = score(chunk=2)
    assert is_balanced(result)
    assert (result["scored"], result["deduplicated"], next(numbers)) == (6, 6, 4)
    assert {row.status for row in query(tmp_path / "warehouse")} == {"scored", "rejected"}


def test_a_run_that_loses_a_row_is_not_published(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: str,
) -> None:
    def all_but_one(worker: Worker, batches: Any) -> Any:
        for batch in worker(batches):
            yield batch[1:]

    monkeypatch.setattr(job, "score_chunks", change_batches(all_but_one))
    reason = {"files": "empty.png has no row", "spark": "scored 16 files; the branch has {"}
    with pytest.raises(AuditError, match=reason[writer]):
        score(writer=writer)
    assert query(tmp_path / "warehouse") == []


@pytest.mark.parametrize(
    "mask", [encode_mask(np.zeros((32, 64), bool)), encode_image(Image.new("L", (64, 64)), "PNG")]
)
def test_a_run_with_a_mask_of_another_size_or_kind_is_not_published(
    mask: bytes,
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoiling(worker: Worker, batches: Any) -> Any:
        for batch in worker(batches):
            masks = [mask if value.is_valid else None for value in batch["mask"]]
            at = batch.schema.get_field_index("mask")
            yield batch.set_column(at, "mask", pa.array(masks, pa.binary()))

    monkeypatch.setattr(job, "score_chunks", change_batches(spoiling))
    with pytest.raises(AuditError, match="is inconsistent"):
        score()
    assert query(tmp_path / "warehouse") == []


def test_too_many_failures_publish_nothing_and_keep_the_branch(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    with pytest.raises(FailureRateError, match="4 of 16 files rejected"):
        score(max_failure_rate=0.2)
    assert query(tmp_path / "warehouse") == []
    assert score()["scored"] == 12


@pytest.mark.slow("two runs of score")
def test_a_file_that_is_lost_before_the_commit_fails_the_audit(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("eagle_spark.scoring.write_files.tasks_for", lambda *_: 3)
    append = Branch.append_files
    with monkeypatch.context() as patch:
        patch.setattr(Branch, "append_files", lambda branch, files: append(branch, files[1:]))
        with pytest.raises(AuditError, match="listed 16 files; the branch has 10 new rows, wanted"):
            score()
    assert query(tmp_path / "warehouse") == []
    assert score()["scored"] == 12
    assert len({row.path for row in query(tmp_path / "warehouse")}) == 16


def test_rows_that_another_commit_changed_on_the_branch_fail_the_audit(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = job.score_chunks

    def change_a_row(context: ScoreRun, branch: Branch, *arguments: Any) -> Any:
        written = original(context, branch, *arguments)
        # The number of rows remains that of the tasks.
        context.spark.sql(f"UPDATE {branch.full_name} SET label = NULL WHERE status = 'scored'")
        return written

    monkeypatch.setattr(job, "score_chunks", change_a_row)
    with pytest.raises(AuditError, match="is inconsistent"):
        score()
    assert query(tmp_path / "warehouse") == []


@pytest.mark.slow("two runs of score")
def test_rows_that_replace_outdated_ones_are_audited_by_the_figures_of_the_tasks(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score()
    write_unlabelled(tmp_path / "others", 3, 6)
    changed = list_valid_images(images)[0]
    shutil.copy(list_valid_images(tmp_path / "others")[0], changed)
    monkeypatch.setattr("eagle_spark.scoring.assess.assess_rows", _fail)
    result = score(retry_rejected=True)
    assert is_balanced(result)
    assert (result["already_scored"], result["scored"], result["rejected"]) == (11, 1, 4)
    assert result["published_run_ids"] == [result["run_id"]]
    rows = query(tmp_path / "warehouse")
    assert Counter(row.run_id == result["run_id"] for row in rows) == {False: 11, True: 5}
    nothing = score()
    assert (nothing["already_scored"], nothing["published_run_ids"]) == (12, [])


def number_execution(spark: Any) -> int:
    """Execute a query, and return its number; Spark numbers all in turn."""
    spark.range(1).count()
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    listed = spark._jsparkSession.sharedState().statusStore().executionsList()
    return max(int(listed.apply(i).executionId()) for i in range(listed.size()))


@pytest.mark.slow("three runs of score")
def test_a_run_without_rows_of_others_is_published_and_recorded_without_sql(
    spark: Any,
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    model_with_novelty: Path,
) -> None:
    before = number_execution(spark)
    first = score(model=model_with_novelty, writer="files")
    assert number_execution(spark) == before + 1
    rows = query(tmp_path / "warehouse", PREDICTION_ROWS)
    again = score(model=model_with_novelty, writer="files")
    assert (again["already_scored"], again["flagged"]["any"]) == (first["scored"], 0)
    before = number_execution(spark)
    by_sql = score(model=model_with_novelty, writer="spark", warehouse=tmp_path / "spark")
    assert number_execution(spark) > before + 1
    assert query(tmp_path / "spark", PREDICTION_ROWS) == rows
    same = ("listed", "scored", "rejected", "drift_by", "flagged", "exit_code")
    assert {name: first[name] for name in same} == {name: by_sql[name] for name in same}
    assert sum(first["flagged"].values()) > 0
    texts = [
        row.distribution
        for folder in ("warehouse", "spark")
        for row in query(tmp_path / folder, f"SELECT * FROM {RUNS.full_name} ORDER BY started_at")
    ]
    assert texts[0] == texts[2]
    assert texts[1] == "{}"
    assert json.loads(texts[0])["images"] == first["scored"]


@pytest.mark.slow("three runs of score")
def test_a_run_after_others_needs_sql_for_copies_alone(
    spark: Any,
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    model_with_novelty: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "MIN_IMAGES", 10)
    executions: list[int] = []
    original, failpoint = job.prepare, job.failpoint

    def prepare(*arguments: Any) -> Any:
        executions.append(number_execution(spark))
        prepared = original(*arguments)
        executions.append(number_execution(spark))
        return prepared

    def fail(name: str) -> None:
        if name == "written":
            executions.append(number_execution(spark))
        failpoint(name)

    monkeypatch.setattr(job, "prepare", prepare)
    monkeypatch.setattr(job, "failpoint", fail)
    score(model=model_with_novelty, writer="files")
    write_unlabelled(images / "more", 12, 6)
    for new in (12, 0):
        executions[:] = [number_execution(spark)]
        result = score(model=model_with_novelty, writer="files")
        assert (result["scored"], result["drift_from_recent_runs"] is None) == (new, not new)
        begin, compare, compared, written = executions
        assert (compare, compared) == (begin + 1, begin + 2)
        assert number_execution(spark) == written + 1
    rows = query(tmp_path / "warehouse", f"SELECT distribution FROM {RUNS.full_name}")
    counts = [json.loads(row.distribution).get("images", 0) for row in rows]
    assert sorted(counts) == [0, 12, 12]
