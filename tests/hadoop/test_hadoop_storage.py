"""The storage verbs on a real HDFS."""

from __future__ import annotations

import subprocess
from uuid import uuid4

import pytest
from local_cluster import HADOOP, LocalCluster

from eagle_spark.errors import InputError
from eagle_spark.storage import join, list_folder, locate

pytestmark = pytest.mark.hadoop

ODD = [
    "Viral Pneumonia/a b.png",
    "x#1.png",
    "q?a=1&b.png",
    "100%.png",
    "%41.png",
    "ü/日本.png",
    "[1]*{a,b}.png",
]


@pytest.fixture
def folder(cluster: LocalCluster) -> str:
    return f"{cluster.uri}/test {uuid4().hex}"


@pytest.mark.parametrize("name", ODD)
def test_odd_names_survive_every_verb(folder: str, name: str) -> None:
    storage, path = locate(join(folder, name))
    assert not storage.exists(path)
    storage.write(path, b"one")
    storage.write(path, b"other")
    assert storage.exists(path)
    assert storage.read(path, 100) == b"other"
    assert storage.read(path, 2) == b"ot"
    (entry,) = list_folder(folder)
    assert (entry.uri, entry.length) == (join(folder, name), 5)
    assert locate(entry.uri)[1] == path
    storage.rename(path, path + " new#?%")
    assert [one.uri for one in list_folder(folder)] == [join(folder, name) + " new#?%"]
    storage.delete(path + " new#?%")
    assert list(list_folder(folder)) == []


def test_hadoops_own_shell_sees_the_same_names(cluster: LocalCluster, folder: str) -> None:
    for name in ODD:
        storage, path = locate(join(folder, name))
        storage.write(path, b"x")
    shown = subprocess.run(
        [str(HADOOP / "fs"), "-ls", "-C", "-R", locate(folder)[1]],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert {locate(join(folder, name))[1] for name in ODD} <= set(shown.stdout.splitlines())


def test_a_missing_folder_is_an_input_error(folder: str) -> None:
    with pytest.raises(InputError, match="no such folder"):
        list(list_folder(folder))


def test_hidden_names_are_left_out(folder: str) -> None:
    for name in (".hidden", "_SUCCESS", "_tmp/x.png", "a/.b/c.png", "seen.png"):
        storage, path = locate(join(folder, name))
        storage.write(path, b"x")
    assert [entry.name for entry in list_folder(folder)] == ["seen.png"]
