"""The score job: every listed file gets one row per model, published in one step."""

from __future__ import annotations

import json
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

from eagle_spark.dataset.sample import write_unlabelled
from eagle_spark.errors import (
    LOOK_FIRST,
    BundleError,
    InputError,
    OutputError,
    SettingsError,
    TooManyFailures,
    UnbalancedRun,
)
from eagle_spark.images.masks import decode_mask, encode_mask
from eagle_spark.lease import AlreadyRunning
from eagle_spark.model.bundle import seal
from eagle_spark.model.review import Flag
from eagle_spark.scoring import score as job
from eagle_spark.scoring import shift
from eagle_spark.scoring.inventory import list_images, spool_listing
from eagle_spark.scoring.predict import STAGES, Predictor
from eagle_spark.scoring.rows import SAID
from eagle_spark.session import open_session
from eagle_spark.settings import ScoreSettings
from eagle_spark.tables import PREDICTIONS, Warehouse
from planted import EXPECTED, PLANTED, encoded, put

pytestmark = [pytest.mark.spark, pytest.mark.train]

ROWS = f"SELECT * FROM {PREDICTIONS.full_name}"
# All that does not tell of the run.
SAID_ROWS = f"SELECT * EXCEPT (run_id, scored_at) FROM {PREDICTIONS.full_name} ORDER BY path"


def query(warehouse: Path, sql: str = ROWS) -> list[Any]:
    with open_session("test", str(warehouse)) as session:
        return session.sql(sql).collect()


@pytest.fixture
def night(spark: Any, model_folder: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Score `tmp_path/images` into `tmp_path/warehouse`."""

    def run(**options: Any) -> dict[str, Any]:
        given = {"model": model_folder, "images": tmp_path / "images"} | options
        chosen = {
            key: str(value) if isinstance(value, Path) else value for key, value in given.items()
        }
        return job.score(ScoreSettings(warehouse=str(tmp_path / "warehouse"), **chosen))

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """12 sound images and 4 broken ones in nested folders."""
    write_unlabelled(tmp_path / "images", 12, 5)
    return tmp_path / "images"


def sound_images(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.png"))
    return [path for path in files if path.stat().st_size > 10_000 and "truncated" not in path.name]


def balanced(result: dict[str, Any]) -> bool:
    return result["listed"] == result["already_scored"] + result["scored"] + result["rejected"]


def test_every_file_gets_a_row_and_a_second_run_scores_nothing(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    first = night()
    assert balanced(first)
    assert (first["listed"], first["scored"], first["rejected"]) == (16, 12, 4)
    assert first["engine"] == "openvino"
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
    again = night()
    assert balanced(again)
    assert (again["already_scored"], again["scored"], again["already_rejected"]) == (12, 0, 4)
    assert again["snapshot_id"] == first["snapshot_id"]
    assert sorted(query(tmp_path / "warehouse")) == sorted(rows)
    assert again["flagged"] == dict.fromkeys(("any", "confidence", "novelty", "mask"), 0)


def test_rows_say_why_a_person_has_to_look(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, watchful_folder: Path
) -> None:
    put(images / "noise.png", encoded(Image.effect_noise((300, 300), 90), "PNG"))
    result = night(model=watchful_folder)
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
    assert night(model=watchful_folder)["same_bytes"] == 1
    (again,) = (r for r in query(tmp_path / "warehouse") if r.path.endswith("again.png"))
    assert (again.novelty, again.review_reasons) == (noise.novelty, noise.review_reasons)
    assert again.engine == noise.engine == "openvino"


@pytest.mark.parametrize("engine", ["onnx", "litert"])
def test_exports_score_as_openvino_does(
    night: Callable[..., dict[str, Any]],
    images: Path,
    exported_folder: Path,
    tmp_path: Path,
    engine: str,
) -> None:
    first = night()
    wanted = {row.path: row for row in query(tmp_path / "warehouse") if row.status == "scored"}
    shutil.rmtree(tmp_path / "warehouse")
    result = night(model=exported_folder, engine=engine)
    assert balanced(result)
    assert (result["engine"], result["scored"]) == (engine, 12)
    assert result["model_id"] == first["model_id"]
    rows = {row.path: row for row in query(tmp_path / "warehouse") if row.status == "scored"}
    assert rows.keys() == wanted.keys()
    for path, row in rows.items():
        assert row.probabilities == pytest.approx(wanted[path].probabilities, abs=1e-4)
        assert np.mean(decode_mask(row.mask) != decode_mask(wanted[path].mask)) < 1e-3


def test_new_and_changed_files_alone_are_scored(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    night()
    sound = sound_images(images)[0]
    shutil.copy(sound, images / "again.png")
    changed = next(images.rglob("empty.png"))
    shutil.copy(sound, changed)
    result = night()
    assert balanced(result)
    assert (result["listed"], result["scored"], result["rejected"]) == (17, 2, 3)
    rows = query(tmp_path / "warehouse")
    assert len(rows) == len({row.path for row in rows}) == 17
    assert len({row.image_id for row in rows if row.path.endswith(("again.png", "empty.png"))}) == 1


def test_bytes_that_have_a_row_are_not_asked_about_again(
    night: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night()
    (sound, *_) = sound_images(images)
    shutil.copy(sound, images / "copy.png")
    with monkeypatch.context() as patch:
        patch.setattr(job.Night, "fill_same", _die)
        with pytest.raises(KeyboardInterrupt):
            night()
    result = night()
    assert balanced(result)
    assert (result["scored"], result["same_bytes"]) == (1, 1)
    assert result["task_seconds"]["infer"] == 0
    rows = {row.path: row for row in query(tmp_path / "warehouse")}
    one, other = (rows[path.as_uri()].asDict() for path in (sound, images / "copy.png"))
    for name in ("image_id", "status", *SAID):
        assert one[name] == other[name]
    assert other["run_id"] == result["run_id"] != one["run_id"]


def test_two_images_whose_ids_begin_alike_are_both_scored(
    night: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night()
    write_unlabelled(tmp_path / "images" / "more", 2, 99)
    before = job.Night.scored_images

    def with_strangers(self: job.Night) -> Any:
        from eagle_spark.images.hashes import image_id
        from eagle_spark.scoring.predict import key_of

        found = before(self)
        assert found
        keys = [key_of(image_id(path.read_bytes())) for path in images.rglob("more/**/*.png")]
        return self.spark.sparkContext.broadcast(np.unique(np.append(found.value, keys)))

    monkeypatch.setattr(job.Night, "scored_images", with_strangers)
    result = night()
    assert balanced(result)
    assert (result["scored"], result["same_bytes"]) == (2, 0)


def _die(_: object) -> None:
    raise KeyboardInterrupt


def test_what_was_rejected_is_scored_anew_when_asked(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    first, again = night(), night(retry_rejected=True)
    assert balanced(again)
    assert (again["scored"], again["rejected"]) == (0, 4)
    rows = query(tmp_path / "warehouse")
    assert Counter(row.run_id for row in rows) == {first["run_id"]: 12, again["run_id"]: 4}


def test_masks_are_written_in_the_tree_of_the_images(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    assert night(masks_out=masks)["masks_written"] == 12
    scored = [row for row in query(tmp_path / "warehouse") if row.status == "scored"]
    wanted = {
        masks / Path(row.path.removeprefix(f"{images.as_uri()}/") + ".mask.png"): row.mask
        for row in scored
    }
    files = [path for path in masks.rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in files if path.name != ".model"} == wanted
    assert night(masks_out=masks)["masks_written"] == 0
    lost, changed = sorted(wanted)[:2]
    lost.unlink()
    source = images / changed.relative_to(masks).as_posix().removesuffix(".mask.png")
    shutil.copy(images / lost.relative_to(masks).as_posix().removesuffix(".mask.png"), source)
    assert night(masks_out=masks)["masks_written"] == 2
    assert changed.read_bytes() == lost.read_bytes() == wanted[lost]


def test_masks_of_another_model_replace_those_of_the_first(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, other_model_folder: Path
) -> None:
    night(masks_out=tmp_path / "masks")
    assert night(masks_out=tmp_path / "masks", model=other_model_folder)["masks_written"] == 12
    back = night(masks_out=tmp_path / "masks")
    assert (back["scored"], back["masks_written"]) == (0, 12)
    masks = {path.read_bytes() for path in tmp_path.rglob("*.mask.png")}
    assert masks == {
        row.mask
        for row in query(tmp_path / "warehouse")
        if row.status == "scored" and row.model_id == back["model_id"]
    }


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


def test_masks_that_cannot_be_written_are_told_of(
    night: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SettingsError, match="--masks-out: wanted a folder outside of --images"):
        night(masks_out=images / "masks")
    (sound, *_) = sound_images(images)
    shutil.copy(sound, images / f"{'n' * 250}.png")
    told = night(masks_out=tmp_path / "masks")
    assert (told["masks_written"], told["masks_failed"]) == (12, 1)
    assert "1 of 13 masks could not be written" in capsys.readouterr().err
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(OutputError, match=r"--masks-out .*taken: not a folder"):
        night(masks_out=tmp_path / "taken")


@pytest.mark.parametrize("name", ["night.zip", "night.tar.gz"])
def test_archives_are_scored_where_they_are(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)

    def pack() -> None:
        form = {"night.zip": "zip", "night.tar.gz": "gztar"}[name]
        shutil.make_archive(str(folder / "night"), form, images)

    night()
    loose = {row.image_id: row.label for row in query(tmp_path / "warehouse")}
    shutil.rmtree(tmp_path / "warehouse")
    pack()
    first = night(images=tmp_path / "in", masks_out=tmp_path / "masks")
    assert balanced(first)
    assert (first["scored"], first["rejected"], first["masks_written"]) == (12, 4, 12)
    for row in query(tmp_path / "warehouse"):
        inside = row.path.removeprefix(f"{folder.as_uri()}/{name}!/").removeprefix("./")
        assert (images / inside).is_file()
        assert row.label == loose[row.image_id]
        if row.status == "scored":
            masks = list(tmp_path.rglob(f"masks/deep/{name}!/**/*.mask.png"))
            assert row.mask in [path.read_bytes() for path in masks]
    assert night(images=tmp_path / "in")["scored"] == 0
    (changed, *_) = sound_images(images)
    write_unlabelled(tmp_path / "other", 1, 77)
    (other, *_) = sound_images(tmp_path / "other")
    shutil.copy(other, changed)
    pack()
    again = night(images=tmp_path / "in")
    assert balanced(again)
    assert (again["scored"], again["same_bytes"], again["rejected"]) == (12, 11, 4)
    alone = night(images=folder / name, masks_out=tmp_path / "alone")
    assert (alone["already_scored"], alone["scored"], alone["masks_written"]) == (12, 0, 12)
    assert night(images=folder / name, masks_out=tmp_path / "alone")["masks_written"] == 0
    assert (tmp_path / "alone" / f"{name}!").is_dir()


def test_a_result_says_where_the_seconds_went(
    night: Callable[..., dict[str, Any]], images: Path
) -> None:
    result = night()
    assert all(result["task_seconds"][stage] > 0 for stage in STAGES)
    assert sum(result["stage_seconds"].values()) == pytest.approx(result["seconds"], abs=1)


@pytest.fixture
def surprised(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model, as if it had been held against images unlike those of `images`."""
    monkeypatch.setattr(shift, "LEAST_IMAGES", 10)
    shutil.copytree(model_folder, tmp_path / "model")
    card = json.loads((tmp_path / "model" / "metadata.json").read_text())
    del card["digests"], card["model_id"]
    bins = {"edges": [2.0, 3.0], "shares": [0.0, 0.0, 1.0]}
    seen = {"images": 200, "label": {"A": 1.0}, "confidence": bins, "lung_area": bins}
    seal(tmp_path / "model", card | {"reference": seen})
    return tmp_path / "model"


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


def test_a_file_has_one_row_per_model(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, other_model_folder: Path
) -> None:
    one, two = night(), night(model=other_model_folder)
    assert one["model_id"] != two["model_id"]
    assert two["scored"] == 12
    rows = query(tmp_path / "warehouse")
    assert Counter(row.model_id for row in rows) == {one["model_id"]: 16, two["model_id"]: 16}


def test_everything_planted_becomes_a_row(
    night: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, make in PLANTED.items():
        (folder / name).write_bytes(make())
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "fifo.png")
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(PLANTED["grey.png"]())
    (folder / "ünï #1?%20 \n.png").write_bytes(PLANTED["grey.png"]())
    expected = {name: reason and str(reason) for name, reason in EXPECTED.items()}
    expected |= {"loop.png": "unreadable", "fifo.png": "unreadable", "ünï #1?%20 \n.png": None}
    expected |= {r"caf\udce9.png": "unreadable"}  # a name that is no UTF-8 cannot be opened by it
    result = night()
    assert balanced(result)
    found = {row.path.rsplit("/", 1)[-1]: row.reason for row in query(tmp_path / "warehouse")}
    assert found == expected


def test_what_could_not_be_read_is_tried_again(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    link = images / "link.png"
    link.symlink_to(tmp_path / "behind.png")
    assert night()["rejected"] == 5
    stat = link.lstat()
    (tmp_path / "behind.png").write_bytes(PLANTED["grey.png"]())
    os.utime(tmp_path / "behind.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = night()
    assert balanced(result)
    assert (result["scored"], result["rejected"]) == (1, 4)


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


def test_the_result_of_an_image_does_not_depend_on_its_batch(
    night: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, spark: Any
) -> None:
    night()
    together = {row.path: row for row in query(tmp_path / "warehouse") if row.status == "scored"}
    shutil.rmtree(tmp_path / "warehouse")
    night(chunk=1)
    for row in query(tmp_path / "warehouse"):
        if row.status == "scored":
            other = together[row.path]
            assert row.label == other.label
            assert row.confidence == pytest.approx(other.confidence, abs=1e-3)
            assert np.mean(decode_mask(row.mask) != decode_mask(other.mask)) < 1e-3


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


def test_an_empty_folder_is_a_quiet_night(
    night: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    result = night()
    assert balanced(result)
    assert result["listed"] == 0


def test_a_folder_or_model_that_is_not_there_is_named(
    night: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no such folder"):
        night()
    with pytest.raises(BundleError, match="nowhere"):
        night(model=tmp_path / "nowhere")


def test_the_listing_is_spooled_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eagle_spark.scoring import inventory

    monkeypatch.setattr(inventory, "ENTRIES_PER_PART", 2)
    for number in range(5):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}").write_bytes(b"")
    assert spool_listing(list_images(str(tmp_path / "in")), str(tmp_path / "out")) == 5
    assert len(list((tmp_path / "out").iterdir())) == 3
