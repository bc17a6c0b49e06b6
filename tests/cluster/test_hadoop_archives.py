"""Archives on a real HDFS: listed, read and scored in place."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from eagle_spark.datasets.synthetic.sample import write_unlabelled
from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.io import resolve
from eagle_spark.io.archives import BUFFER_BYTES, Archives, list_members
from eagle_spark.scoring import job as job
from eagle_spark.settings import ScoreSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS
from tests.cluster.local_cluster import LocalCluster

pytestmark = [pytest.mark.hadoop]

FORMS = {"night.zip": "zip", "night.tar": "tar", "night.tar.gz": "gztar"}


@pytest.fixture
def put(cluster: LocalCluster) -> Callable[[Path, str], str]:
    """Copy a file into a folder of the test's own; return its URI."""
    folder = f"{cluster.uri}/archives {uuid4().hex}"

    def copy(file: Path, name: str) -> str:
        storage, path = resolve(f"{folder}/{name}")
        storage.put(path, lambda: file.open("rb"))
        return f"{folder}/{name}"

    return copy


def pack(folder: Path, name: str, target: Path) -> Path:
    return Path(shutil.make_archive(str(target / "night"), FORMS[name], folder))


@pytest.mark.parametrize("name", FORMS)
def test_members_are_those_of_the_same_archive_on_a_disk(
    put: Callable[[Path, str], str], tmp_path: Path, name: str
) -> None:
    draw = random.Random(1)
    (tmp_path / "in" / "a b").mkdir(parents=True)
    # Some larger than the read buffer, some far smaller.
    for number in range(40):
        size = draw.choice((0, 100, 3 * BUFFER_BYTES))
        (tmp_path / "in" / "a b" / f"{number}#?.png").write_bytes(draw.randbytes(size))
    file = pack(tmp_path / "in", name, tmp_path)
    results = []
    for uri in (file.as_uri(), put(file, name)):
        storage, path = resolve(uri)
        members = list(list_members(storage.stat(path)))
        draw.shuffle(members)
        with Archives() as archives:
            contents = {
                member.path.removeprefix(uri): (
                    member.length,
                    member.position,
                    archives.read(uri, member.position, member.length, 1 << 20),
                )
                for member in members[:20] + sorted(members, key=lambda member: member.position)
            }
        results.append(contents)
    assert len(results[0]) == 40
    assert results[0] == results[1]


@pytest.mark.parametrize("name", FORMS)
def test_a_truncated_archive_is_rejected(
    put: Callable[[Path, str], str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").write_bytes(random.Random(1).randbytes(1 << 20))
    file = pack(tmp_path / "in", name, tmp_path)
    file.write_bytes(file.read_bytes()[: 1 << 19])
    uri = put(file, name)
    storage, path = resolve(uri)
    *_, last = list_members(storage.stat(path))
    assert last.path == uri
    with Archives() as archives, pytest.raises(ImageRejectedError) as caught:
        archives.read(uri, last.position, last.length, 1 << 20)
    assert caught.value.reason == Reason.BAD_ARCHIVE


@pytest.mark.extended("three runs of score on HDFS", seconds=25)
@pytest.mark.spark
@pytest.mark.train
def test_a_folder_that_holds_archives_and_one_archive_alone_are_scored(
    put: Callable[[Path, str], str], spark: Any, model_folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    write_unlabelled(images, 12, 5)

    def score(folder: str, warehouse: str) -> dict[str, Any]:
        inputs = {"images": folder, "model": str(model_folder)}
        return asdict(job.score(ScoreSettings(warehouse=str(tmp_path / warehouse), **inputs)))

    def rows(warehouse: str) -> list[Any]:
        with open_session("test", str(tmp_path / warehouse)) as session:
            return session.sql(f"SELECT * FROM {PREDICTIONS.full_name}").collect()

    score(str(images), "loose")
    loose = {Path(row.path).name: row for row in rows("loose")}
    uris = [put(pack(images, name, tmp_path), f"deep/{name}") for name in FORMS]
    result = score(uris[0].rpartition("/deep/")[0], "packed")
    assert (result["listed"], result["scored"], result["rejected"]) == (48, 36, 12)
    packed = rows("packed")
    assert {row.path.partition("!/")[0] for row in packed} == set(uris)
    for row in packed:
        other = loose[Path(row.path).name]
        for name in ("image_id", "status", "reason", "label", "mask"):
            assert row[name] == other[name], row.path
    alone = score(uris[0], "packed")
    assert (alone["listed"], alone["already_scored"], alone["scored"]) == (16, 12, 0)
