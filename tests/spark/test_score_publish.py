"""The score job beside kills, other runs and failed audits: what is published, and what is not."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from eagle_spark.datasets.synthetic.sample import write_unlabelled
from eagle_spark.errors import (
    LOOK_FIRST,
    OutputError,
    TooManyFailures,
    UnbalancedRun,
)
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.io.lock import AlreadyRunning
from eagle_spark.scoring import job as job
from eagle_spark.scoring import monitor as shift
from eagle_spark.scoring.predict import Predictor
from eagle_spark.tables import PREDICTIONS, Warehouse
from tests.helpers.nights import SAID_ROWS, balanced, query, sound_images
from tests.helpers.planted import encoded
from tests.helpers.untrained import reseal

pytestmark = [pytest.mark.spark, pytest.mark.train]


@pytest.fixture
def surprised(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model, as if it had been held against images unlike those of `images`."""
    monkeypatch.setattr(shift, "LEAST_IMAGES", 10)
    shutil.copytree(model_folder, tmp_path / "model")
    bins = {"edges": [2.0, 3.0], "shares": [0.0, 0.0, 1.0]}
    seen = {"images": 200, "label": {"A": 1.0}, "confidence": bins, "lung_area": bins}
    reseal(tmp_path / "model", reference=seen)
    return tmp_path / "model"


@pytest.mark.slow("four nights")
def test_images_unlike_those_the_model_knows_are_warned_of(
    night: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    surprised: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = night()
    # This model was never held against anything.
    assert (usual["shift"], usual["exit_code"]) == (None, 0)
    shutil.rmtree(tmp_path / "warehouse")
    blocked = tmp_path / "masks"
    blocked.mkdir()
    (blocked / "ward-a").write_bytes(b"")  # no folder
    with pytest.raises(OutputError, match=r"4 of 12 masks could not be written: .*ward-a") as ended:
        night(model=surprised, masks_out=blocked)
    result: Any = ended.value.figures
    assert (result["masks_written"], result["masks_failed"]) == (8, 4)
    assert ended.value.exit_code == LOOK_FIRST
    assert result["shift"] == max(result["shift_by"]["training"].values()) > 1
    assert result["exit_code"] == LOOK_FIRST
    assert result["shift_from_nights"] is None  # the first
    assert "warning: lung_area of tonight's images is not that of training" in (
        capsys.readouterr().err
    )
    assert night(model=surprised)["shift"] is None  # nothing new, as that run was recorded
    write_unlabelled(images / "more", 12, 6)
    assert night(model=surprised)["shift_from_nights"] is not None


@pytest.mark.slow("five nights")
def test_what_a_killed_run_published_and_did_not_tell_of_is_told_by_the_next(
    night: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    surprised: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = night(model=surprised)
    shutil.rmtree(tmp_path / "warehouse")
    with monkeypatch.context() as patched:
        patched.setattr(Warehouse, "record_run", _fail)
        with pytest.raises(RuntimeError, match="killed"):
            night(model=surprised)
    (killed,) = {row.run_id for row in query(tmp_path / "warehouse")}
    shutil.copytree(images, tmp_path / "others")
    elsewhere = night(model=surprised, images=tmp_path / "others")
    assert killed not in elsewhere["published_runs"]  # another folder's night
    told = night(model=surprised)
    assert (told["already_scored"], told["scored"]) == (12, 0)
    assert told["published_runs"] == [killed]
    assert told["shift_by"]["training"] == whole["shift_by"]["training"]
    assert told["flagged"] == whole["flagged"]
    assert told["exit_code"] == whole["exit_code"] == LOOK_FIRST
    quiet = night(model=surprised)
    assert (quiet["published_runs"], quiet["shift"], quiet["exit_code"]) == ([], None, 0)


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("killed")


def test_a_second_attempt_on_yarn_says_again_what_the_first_one_warned_of(
    night: Callable[..., dict[str, Any]],
    images: Path,
    surprised: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = night(model=surprised)
    shutil.copy(sound_images(images)[0], images / "came_meanwhile.png")
    monkeypatch.setattr(shift, "is_second_attempt", lambda _: True)
    second = night(model=surprised)
    assert second["same_bytes"] == 1
    assert (second["shift_by"], second["exit_code"]) == (first["shift_by"], LOOK_FIRST)


@pytest.mark.slow("two nights")
def test_rows_replace_older_ones_where_main_has_moved_in_the_meantime(
    night: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = night()
    changed, other, *_ = sound_images(images)
    shutil.copy(other, changed)
    checked = job.Night.check
    moves = 0

    def then_main_moves(self: job.Night, total: int) -> None:
        nonlocal moves
        checked(self, total)
        moves += 1
        if moves == 1:
            self.warehouse.spark.sql(
                "CALL eagle.system.rewrite_data_files(table => 'eagle.cxr.predictions', "
                "options => map('rewrite-all', 'true'))"
            )

    monkeypatch.setattr(job.Night, "check", then_main_moves)
    result = night(retry_rejected=True)
    assert moves == 2  # and audited again
    assert balanced(result)
    rows = {row.path: row for row in query(tmp_path / "warehouse")}
    assert len(rows) == len(query(tmp_path / "warehouse")) == 16
    fresh = {path for path, row in rows.items() if row.run_id == result["run_id"]}
    rejected = {path for path, row in rows.items() if row.status == "rejected"}
    assert fresh == {changed.as_uri(), *rejected}
    assert Counter(row.run_id for row in rows.values())[first["run_id"]] == 11
    assert rows[changed.as_uri()].image_id == rows[other.as_uri()].image_id


def test_a_second_run_at_the_same_time_says_so(
    night: Callable[..., dict[str, Any]], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def while_it_runs(self: job.Night) -> None:
        with pytest.raises(AlreadyRunning, match=f"{self.run.run_id} on .* process {os.getpid()}"):
            night()
        original(self)

    original = job.Night.score_chunk
    monkeypatch.setattr(job.Night, "score_chunk", while_it_runs)
    assert night()["scored"] == 12


def test_rows_that_two_runs_left_twice_are_scored_anew(
    night: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = job.Night.score_chunk

    def twice(self: job.Night) -> None:
        original(self)
        rows = self.warehouse.read(PREDICTIONS, self.branch)
        self.warehouse.append(PREDICTIONS, rows, self.branch)

    with monkeypatch.context() as patch:
        patch.setattr(job.Night, "score_chunk", twice)
        with pytest.raises(UnbalancedRun, match="listed 16 files"):
            night()
    result = night()
    assert balanced(result)
    assert result["scored"] == 12


@pytest.mark.slow("three nights of four chunks")
def test_a_run_killed_between_chunks_is_gone_on_with(
    night: Callable[..., dict[str, Any]],
    images: Path,
    watchful_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Bytes that the first chunk has a row of, among those of the last one.
    shutil.copy(min(sound_images(images)), images / "z.png")
    undisturbed = night(model=watchful_folder, chunk=5)
    wanted = query(tmp_path / "warehouse", SAID_ROWS)
    shutil.rmtree(tmp_path / "warehouse")
    chunks = 0
    original = job.Night.score_chunk

    def die_at_the_third(self: job.Night) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 3:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(job.Night, "score_chunk", die_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            night(model=watchful_folder, chunk=5)
    assert query(tmp_path / "warehouse") == []
    result = night(model=watchful_folder, chunk=5)
    assert balanced(result)
    assert (result["already_scored"], result["scored"], result["rejected"]) == (0, 13, 4)
    assert result["same_bytes"] == undisturbed["same_bytes"]
    rows = query(tmp_path / "warehouse")
    assert Counter(row.run_id == result["run_id"] for row in rows) == {False: 10, True: 7}
    assert len({row.path for row in rows}) == 17
    assert query(tmp_path / "warehouse", SAID_ROWS) == wanted


def test_a_run_that_loses_a_row_is_not_published(
    night: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(**_: object) -> Any:
        def score(batches: Any) -> Any:
            for _ in batches:
                yield from ()

        return score

    monkeypatch.setattr(job, "Predictor", nothing)
    with pytest.raises(UnbalancedRun, match="listed 16 files, but only 0 got a row"):
        night()
    assert query(tmp_path / "warehouse") == []


@pytest.mark.parametrize(
    "mask", [encode_mask(np.zeros((32, 64), bool)), encoded(Image.new("L", (64, 64)), "PNG")]
)
def test_a_run_with_a_mask_of_another_size_or_kind_is_not_published(
    mask: bytes,
    night: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoiling(**given: Any) -> Any:
        predictor = Predictor(**given)

        def score(batches: Any) -> Any:
            for batch in predictor(batches):
                masks = [mask if found.is_valid else None for found in batch["mask"]]
                at = batch.schema.get_field_index("mask")
                yield batch.set_column(at, "mask", pa.array(masks, pa.binary()))

        return score

    monkeypatch.setattr(job, "Predictor", spoiling)
    with pytest.raises(UnbalancedRun, match="does not hold together"):
        night()
    assert query(tmp_path / "warehouse") == []


def test_too_many_failures_publish_nothing_and_keep_what_was_found(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    with pytest.raises(TooManyFailures, match="4 of 16 files rejected"):
        night(max_failure_rate=0.2)
    assert query(tmp_path / "warehouse") == []
    assert night()["scored"] == 12
