"""Leaks between splits: related images, the audit of train, and split files."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eagle_spark.datasets import leakage as leaks
from eagle_spark.datasets.ingest import preprocess
from eagle_spark.datasets.leakage import (
    NEAR_DUPLICATE,
    SAME_BYTES,
    SAME_PATIENT,
    Leak,
    find_leaks,
)
from eagle_spark.datasets.near_duplicates import MAX_DISTANCE
from eagle_spark.datasets.synthetic.sample import write_sample
from eagle_spark.errors import SplitLeakageError
from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.hashes import compute_perceptual_hash
from eagle_spark.settings import PreprocessSettings, TrainSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, RUNS
from eagle_spark.training.job import train

FAR = [np.random.default_rng(n).bytes(32) for n in range(9)]


def flipped(hashed: bytes, bits: int) -> bytes:
    """Return the hash with its first bits inverted."""
    turned = (1 << 256) - (1 << (256 - bits))
    return (int.from_bytes(hashed, "big") ^ turned).to_bytes(32, "big")


def leaks_of(*rows: tuple[str, str | None, str, bytes]) -> list[Leak]:
    """Return the leaks of rows (split, patient, image id, hash); paths are 0, 1, …"""
    splits, patients, ids, hashes = (list(column) for column in zip(*rows, strict=True))
    return find_leaks([str(at) for at in range(len(rows))], splits, patients, ids, hashes)


def test_images_of_one_split_and_unrelated_images_do_not_leak() -> None:
    assert find_leaks([], [], [], [], []) == []
    assert leaks_of(("val", "p", "a", FAR[0]), ("val", "p", "a", FAR[0])) == []
    assert leaks_of(("train", None, "a", FAR[0]), ("test", None, "b", FAR[1])) == []


def test_a_leak_names_its_reason_and_the_image_of_the_later_split() -> None:
    apart = flipped(FAR[4], 9)
    found = leaks_of(
        ("test", "s/p", "a", FAR[0]),
        ("train", "s/p", "b", FAR[1]),
        ("val", "s/q", "c", FAR[2]),
        ("test", None, "c", FAR[2]),
        ("train", None, "d", FAR[4]),
        ("val", "s/r", "e", apart),
    )
    assert found == [
        Leak("0", "test", "1", "train", SAME_PATIENT, "s/p"),
        Leak("3", "test", "2", "val", SAME_BYTES, "image_id c…"),
        Leak("5", "val", "4", "train", NEAR_DUPLICATE, "9 of 256 bits of the hash differ"),
    ]


def test_a_leak_is_reported_once_with_its_strongest_reason() -> None:
    rows = [("train", "p", "a", FAR[0]), ("train", "q", "b", flipped(FAR[0], 3))]
    (found,) = leaks_of(*rows, ("test", "r", "b", flipped(FAR[0], 2)))
    assert (found.reason, found.other_path) == (SAME_BYTES, "1")
    (found,) = leaks_of(*rows, ("test", "r", "c", flipped(FAR[0], 2)))
    assert (found.reason, found.other_path) == (NEAR_DUPLICATE, "1")


@pytest.mark.parametrize("bits", [MAX_DISTANCE, MAX_DISTANCE + 1])
def test_the_near_duplicate_limit_equals_that_of_the_split(bits: int) -> None:
    found = leaks_of(("train", None, "a", FAR[0]), ("val", None, "b", flipped(FAR[0], bits)))
    assert len(found) == (bits == MAX_DISTANCE)


def test_images_related_through_a_third_image_do_not_leak() -> None:
    middle, end = flipped(FAR[0], 20), flipped(FAR[0], 40)
    found = leaks_of(
        ("train", None, "a", FAR[0]), ("test", None, "b", middle), ("test", None, "c", end)
    )
    assert [leak.path for leak in found] == ["1"]


@pytest.mark.extended("100,000 hashes", seconds=5)
def test_every_leak_of_4_000_near_duplicates_among_100_000_hashes_is_found() -> None:
    draw = np.random.default_rng(0)
    bits = draw.random((100_000, 256)) < 0.5
    bits[:4000] = bits[0] ^ (draw.random((4000, 256)) < 0.02)
    hashes = [row.tobytes() for row in np.packbits(bits, axis=1)]
    names = [str(at) for at in range(len(hashes))]
    splits = draw.choice(["train", "val", "test"], len(hashes), p=[0.7, 0.1, 0.2]).tolist()
    found = find_leaks(names, splits, [None] * len(hashes), names, hashes)
    assert len(found) == sum(split != "train" for split in splits[:4000])


def copies(folder: Path, out: Path) -> tuple[Path, Path]:
    """Copy an image as a JPEG of quality 50, another at two thirds of its size; return both."""
    first, second = sorted((folder / "Normal" / "images").iterdir())[:2]
    out.mkdir(parents=True)
    Image.open(first).convert("L").save(out / "compressed.jpg", quality=50)
    small = Image.open(second).convert("L")
    small.resize((small.width * 2 // 3, small.height * 2 // 3)).save(out / "resized.png")
    return first, second


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("side", [150, 299, 600])
def test_copies_of_drawn_x_rays_are_near(tmp_path: Path, quality: int, side: int) -> None:
    write_sample(tmp_path / "set", 3, 5)
    for path in (tmp_path / "set").glob("*/images/*"):
        stream = io.BytesIO()
        Image.open(path).convert("L").resize((side, side)).save(stream, "JPEG", quality=quality)
        one, other = (
            compute_perceptual_hash(decode_image(data, 224).pixels)
            for data in (path.read_bytes(), stream.getvalue())
        )
        apart = (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()
        assert apart <= MAX_DISTANCE


@pytest.mark.slow("three runs of preprocess")
@pytest.mark.spark
def test_train_rejects_a_table_with_leaks_and_names_them(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This Spark keeps its Python workers, which ranks may not.
    monkeypatch.setattr("eagle_spark.training.job.check_ranks", lambda *_: 1)
    warehouse = tmp_path / "warehouse"
    write_sample(tmp_path / "set", 24, 5)
    first, second = copies(tmp_path / "set", tmp_path / "more" / "Normal" / "images")
    for name in ("set", "more"):
        given = PreprocessSettings(
            input=str(tmp_path / name), warehouse=str(warehouse), size=96, split="1,0,0"
        )
        result = preprocess(given)
    assert (result.accepted, result.audited) == (2, 26)
    with open_session("test", str(warehouse)) as session:
        (patient, source, path), *_ = session.sql(
            f"SELECT patient_id, source, min(path) FROM {IMAGES.full_name} WHERE label = 'COVID' "
            "GROUP BY 1, 2 HAVING count(*) > 1 AND count(DISTINCT image_id) > 1 ORDER BY 1"
        ).collect()
        session.sql(
            f"UPDATE {IMAGES.full_name} SET split = 'test' WHERE source = 'more' OR path = '{path}'"
        )
    with pytest.raises(SplitLeakageError) as refused:
        train(TrainSettings(warehouse=str(warehouse), model=str(tmp_path / "model"), ranks=1))
    said, figures = str(refused.value), refused.value.figures
    assert f"{path} (test) and " in said
    assert f": {SAME_PATIENT}, {source}/{patient}" in said
    for copy, original in (("compressed.jpg", first), ("resized.png", second)):
        pair = f"/more/Normal/images/{copy} (test) and {original.as_uri()} (train)"
        assert f"{pair}: {NEAR_DUPLICATE}" in said
    assert figures["leaks"] == {SAME_PATIENT: 1, NEAR_DUPLICATE: 2}
    assert len(figures["leaking"]) == 3
    assert not (tmp_path / "model").exists()
    # The fix of the message works: images of train stay in train.
    preprocess(PreprocessSettings(input=str(tmp_path / "set"), warehouse=str(warehouse), size=96))
    with open_session("test", str(warehouse)) as session:
        facts = session.table(IMAGES.full_name).select(*leaks.SPLIT_COLUMNS).toPandas()
    leaks.audit_splits(facts, "", "")
    assert len(facts) == 26


@pytest.mark.spark
def test_a_split_file_is_followed_and_one_that_leaks_publishes_nothing(
    spark: Any, tmp_path: Path
) -> None:
    folder, warehouse = tmp_path / "set", tmp_path / "warehouse"
    write_sample(folder, 12, 5)
    copies(folder, tmp_path / "more" / "Normal" / "images")
    names = sorted(path.name for path in (folder / "Normal" / "images").iterdir())
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/images/*"))

    def run(place: Path, text: str) -> dict[str, Any]:
        (tmp_path / "splits.csv").write_text(text)
        settings = PreprocessSettings(
            input=str(place),
            warehouse=str(warehouse),
            size=96,
            split_file=str(tmp_path / "splits.csv"),
        )
        return asdict(preprocess(settings))

    all_train = "".join(f"{path},train\n" for path in paths)
    assert run(folder, f"path,split\n{all_train}")["by_split"] == {"train": 12, "val": 0, "test": 0}
    with pytest.raises(
        SplitLeakageError, match=r"compressed\.jpg \(test\) and .*Nothing was"
    ) as error:
        run(tmp_path / "more", "path,split\ncompressed.jpg,test\nresized.png,train\n")
    assert f"/{names[0]} (train): {NEAR_DUPLICATE}" in str(error.value)
    assert f"`split_file` {tmp_path / 'splits.csv'}" in str(error.value)
    with open_session("test", str(warehouse)) as session:
        assert session.table(IMAGES.full_name).count() == 12
        assert session.sql(f"SELECT * FROM {RUNS.full_name}").count() == 1
    assert run(tmp_path / "more", "path,split\ncompressed.jpg,train\nresized.png,train\n")
