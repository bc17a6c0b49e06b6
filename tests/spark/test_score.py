"""The score job: every listed file gets one row per model, published in one step."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eagle_spark.datasets.synthetic.sample import write_unlabelled
from eagle_spark.errors import (
    InputError,
    ModelError,
)
from eagle_spark.imaging.mask import decode_mask
from eagle_spark.model.review import Flag
from eagle_spark.scoring import chunks, job
from eagle_spark.scoring.dedupe import PREDICTION_COLUMNS
from eagle_spark.scoring.listing import list_images, write_listing
from eagle_spark.scoring.predict import STAGES
from eagle_spark.scoring.slices import count_slice
from tests.helpers.sample_images import EXPECTED_REASONS, SAMPLE_IMAGES, encode_image, write_file
from tests.helpers.score_runs import is_balanced, list_valid_images, query

pytestmark = [pytest.mark.spark, pytest.mark.train]


def test_every_file_gets_a_row_and_a_second_run_scores_nothing(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, writer: str
) -> None:
    first = score(writer=writer)
    assert is_balanced(first)
    assert (first["listed"], first["scored"], first["rejected"]) == (16, 12, 4)
    assert first["engine"] == "openvino"
    assert first["task_seconds"].keys() == set(STAGES)
    assert min(first["task_seconds"][stage] for stage in ("decode", "infer")) > 0
    assert sum(first["stage_seconds"].values()) == pytest.approx(first["seconds"], abs=1)
    rows = query(tmp_path / "warehouse")
    assert Counter(row.reason for row in rows if row.status == "rejected") == Counter(
        ["empty_file", "truncated", "not_an_image", "too_small"]
    )
    for row in rows:
        assert (row.run_id, row.model_id) == (first["run_id"], first["model_id"])
        assert row.engine == ("openvino" if row.status == "scored" else None)
        if row.status == "scored":
            assert sum(row.probabilities.values()) == pytest.approx(1, abs=1e-3)
            assert row.confidence == max(row.probabilities.values()) == row.probabilities[row.label]
            assert row.lung_area == pytest.approx(decode_mask(row.mask).mean())
    again = score(writer=writer)
    assert is_balanced(again)
    assert (again["already_scored"], again["scored"], again["already_rejected"]) == (12, 0, 4)
    assert again["snapshot_id"] == first["snapshot_id"]
    assert sorted(query(tmp_path / "warehouse")) == sorted(rows)
    assert again["flagged"] == dict.fromkeys(("any", *map(str, Flag)), 0)


@pytest.mark.slow("two runs of score")
def test_rows_contain_the_reasons_for_review(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, model_with_novelty: Path
) -> None:
    write_file(images / "noise.png", encode_image(Image.effect_noise((300, 300), 90), "PNG"))
    result = score(model=model_with_novelty)
    rows = {row.path: row for row in query(tmp_path / "warehouse") if row.status == "scored"}
    noise = rows.pop((images / "noise.png").as_uri())
    assert noise.novelty > 1
    assert "novelty" in noise.review_reasons
    for row in rows.values():
        assert row.needs_review == bool(row.review_reasons)
        assert ("novelty" in row.review_reasons) == (row.novelty > 1)
        assert row.review_reasons == sorted(row.review_reasons, key=list(Flag).index)
    assert np.mean([row.novelty > 1 for row in rows.values()]) < 0.3
    counted = Counter(reason for row in [noise, *rows.values()] for reason in row.review_reasons)
    assert result["flagged"].pop("any") == sum(r.needs_review for r in [noise, *rows.values()])
    assert {name: count for name, count in result["flagged"].items() if count} == counted
    shutil.copy(images / "noise.png", images / "again.png")
    assert score(model=model_with_novelty)["deduplicated"] == 1
    (again,) = (r for r in query(tmp_path / "warehouse") if r.path.endswith("again.png"))
    assert (again.novelty, again.review_reasons) == (noise.novelty, noise.review_reasons)
    assert again.engine == noise.engine == "openvino"


@pytest.mark.extended("exports the network twice", seconds=25)
@pytest.mark.parametrize("engine", ["onnx", "litert"])
def test_exports_score_as_openvino_does(
    score: Callable[..., dict[str, Any]],
    images: Path,
    exported_folder: Path,
    tmp_path: Path,
    engine: str,
) -> None:
    first = score()
    wanted = {row.path: row for row in query(tmp_path / "warehouse") if row.status == "scored"}
    shutil.rmtree(tmp_path / "warehouse")
    result = score(model=exported_folder, engine=engine)
    assert is_balanced(result)
    assert (result["engine"], result["scored"]) == (engine, 12)
    assert result["model_id"] == first["model_id"]
    rows = {row.path: row for row in query(tmp_path / "warehouse") if row.status == "scored"}
    assert rows.keys() == wanted.keys()
    for path, row in rows.items():
        assert row.probabilities == pytest.approx(wanted[path].probabilities, abs=1e-4)
        assert np.mean(decode_mask(row.mask) != decode_mask(wanted[path].mask)) < 1e-3


@pytest.mark.slow("two runs of score")
def test_new_and_changed_files_alone_are_scored(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    score()
    sound = list_valid_images(images)[0]
    shutil.copy(sound, images / "again.png")
    changed = next(images.rglob("empty.png"))
    shutil.copy(sound, changed)
    result = score()
    assert is_balanced(result)
    assert (result["listed"], result["scored"], result["rejected"]) == (17, 2, 3)
    rows = query(tmp_path / "warehouse")
    assert len(rows) == len({row.path for row in rows}) == 17
    assert len({row.image_id for row in rows if row.path.endswith(("again.png", "empty.png"))}) == 1


@pytest.mark.slow("three runs of score")
def test_predictions_of_equal_bytes_are_copied(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: str,
) -> None:
    score()
    (sound, *_) = list_valid_images(images)
    shutil.copy(sound, images / "copy.png")
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "copy_duplicate_predictions", _die)
        with pytest.raises(KeyboardInterrupt):
            score(writer=writer)
    result = score(writer=writer)
    assert is_balanced(result)
    assert (result["scored"], result["deduplicated"]) == (1, 1)
    assert result["task_seconds"]["infer"] == 0
    rows = {row.path: row for row in query(tmp_path / "warehouse")}
    one, other = (rows[path.as_uri()].asDict() for path in (sound, images / "copy.png"))
    for name in ("image_id", "status", *PREDICTION_COLUMNS):
        assert one[name] == other[name]
    assert other["run_id"] == result["run_id"] != one["run_id"]


@pytest.mark.extended("two runs of score, for an event of probability 2**-64", seconds=8)
def test_two_images_whose_ids_begin_alike_are_both_scored(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score()
    write_unlabelled(tmp_path / "images" / "more", 2, 99)
    before = job.broadcast_scored_hashes

    def with_strangers(rows: Any) -> Any:
        from eagle_spark.imaging.hashes import compute_image_id
        from eagle_spark.scoring.dedupe import hash_prefix

        broadcast = before(rows)
        assert broadcast
        paths = images.rglob("more/**/*.png")
        keys = [hash_prefix(compute_image_id(path.read_bytes())) for path in paths]
        prefixes = np.unique(np.append(broadcast.value, keys))
        return rows.sparkSession.sparkContext.broadcast(prefixes)

    monkeypatch.setattr(job, "broadcast_scored_hashes", with_strangers)
    result = score()
    assert is_balanced(result)
    assert (result["scored"], result["deduplicated"]) == (2, 0)


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_rejected_files_are_scored_again_with_retry_rejected(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    first, again = score(), score(retry_rejected=True)
    assert is_balanced(again)
    assert (again["scored"], again["rejected"]) == (0, 4)
    rows = query(tmp_path / "warehouse")
    assert Counter(row.run_id for row in rows) == {first["run_id"]: 12, again["run_id"]: 4}


def test_a_file_has_one_row_per_model(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, other_model_folder: Path
) -> None:
    one, two = score(), score(model=other_model_folder)
    assert one["model_id"] != two["model_id"]
    assert two["scored"] == 12
    rows = query(tmp_path / "warehouse")
    assert Counter(row.model_id for row in rows) == {one["model_id"]: 16, two["model_id"]: 16}


def test_every_sample_file_becomes_a_row(
    score: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, make in SAMPLE_IMAGES.items():
        (folder / name).write_bytes(make())
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "fifo.png")
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(SAMPLE_IMAGES["grey.png"]())
    (folder / "ünï #1?%20 \n.png").write_bytes(SAMPLE_IMAGES["grey.png"]())
    expected = {name: reason and str(reason) for name, reason in EXPECTED_REASONS.items()}
    expected |= {"loop.png": "unreadable", "fifo.png": "unreadable", "ünï #1?%20 \n.png": None}
    expected |= {r"caf\udce9.png": "unreadable"}  # a name that is not UTF-8 cannot be opened
    result = score()
    assert is_balanced(result)
    found = {row.path.rsplit("/", 1)[-1]: row.reason for row in query(tmp_path / "warehouse")}
    assert found == expected


@pytest.mark.slow("two runs of score")
def test_unreadable_files_are_retried(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    link = images / "link.png"
    link.symlink_to(tmp_path / "behind.png")
    assert score()["rejected"] == 5
    stat = link.lstat()
    (tmp_path / "behind.png").write_bytes(SAMPLE_IMAGES["grey.png"]())
    os.utime(tmp_path / "behind.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = score()
    assert is_balanced(result)
    assert (result["scored"], result["rejected"]) == (1, 4)


def test_an_empty_folder_scores_nothing(
    score: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    result = score()
    assert is_balanced(result)
    assert result["listed"] == 0


def test_a_folder_or_model_that_is_not_there_is_named(
    score: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no such folder"):
        score()
    with pytest.raises(ModelError, match="nowhere"):
        score(model=tmp_path / "nowhere")


def test_the_listing_is_spooled_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eagle_spark.scoring import listing as inventory

    monkeypatch.setattr(inventory, "ENTRIES_PER_PART", 2)
    for number in range(5):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}").write_bytes(b"")
    parts = write_listing(list_images(str(tmp_path / "in")), str(tmp_path / "out"))
    assert count_slice(parts) == 5
    assert len(list((tmp_path / "out").iterdir())) == 3
