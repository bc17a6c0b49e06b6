"""The storage operations on a real HDFS."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest

from eagle_spark.errors import InputError
from eagle_spark.io import absolute_uri, join, list_folder, resolve
from tests.cluster.local_cluster import HADOOP, LocalCluster

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
def test_unusual_names_survive_every_operation(folder: str, name: str) -> None:
    storage, path = resolve(join(folder, name))
    assert not storage.exists(path)
    storage.write(path, b"one")
    storage.write(path, b"other")
    assert storage.exists(path)
    assert storage.read(path, 100) == b"other"
    assert storage.read(path, 2) == b"ot"
    (entry,) = list_folder(folder)
    assert (entry.uri, entry.length) == (join(folder, name), 5)
    assert resolve(entry.uri)[1] == path
    storage.rename(path, path + " new#?%")
    assert [entry.uri for entry in list_folder(folder)] == [join(folder, name) + " new#?%"]
    storage.delete(path + " new#?%")
    assert list(list_folder(folder)) == []


def test_a_new_file_is_created_with_its_folders(cluster: LocalCluster, folder: str) -> None:
    storage, path = resolve(join(folder, "deep", "x"))
    storage.create(path, b"one")
    assert storage.read(path, 100) == b"one"
    assert everything(cluster, folder) == {folder.rsplit("/", 1)[1], "deep", "x"}


def test_the_shell_of_hadoop_lists_the_same_names(cluster: LocalCluster, folder: str) -> None:
    for name in ODD:
        storage, path = resolve(join(folder, name))
        storage.write(path, b"x")
    shown = subprocess.run(
        [str(HADOOP / "fs"), "-ls", "-C", "-R", resolve(folder)[1]],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert {resolve(join(folder, name))[1] for name in ODD} <= set(shown.stdout.splitlines())


def test_a_missing_folder_is_an_input_error(folder: str) -> None:
    with pytest.raises(InputError, match="no such folder"):
        list(list_folder(folder))


def test_a_folder_deleted_during_the_listing_is_not_listed(folder: str) -> None:
    for name in ("a.png", "sub/b.png"):
        storage, path = resolve(join(folder, name))
        storage.write(path, b"x")
    entries = list_folder(folder)
    assert next(entries).name == "a.png"  # `sub` is listed by now, its content is not
    storage.delete(path.rsplit("/", 1)[0])
    assert list(entries) == []


def test_hidden_names_are_left_out(folder: str) -> None:
    for name in (".hidden", "_SUCCESS", "_tmp/x.png", "a/.b/c.png", "seen.png"):
        storage, path = resolve(join(folder, name))
        storage.write(path, b"x")
    assert [entry.name for entry in list_folder(folder)] == ["seen.png"]


def everything(cluster: LocalCluster, uri: str) -> set[str]:
    """Return the names of all files below a folder, hidden ones too, from Hadoop's shell."""
    return {path.rsplit("/", 1)[1] for path in shell(cluster, "fs", "-find", resolve(uri)[1])}


def shell(cluster: LocalCluster, program: str, *arguments: str, **conf: str) -> list[str]:
    """Return the lines that a program in `hadoop/` prints."""
    shown = subprocess.run(
        [str(HADOOP / program), *arguments],
        env=cluster.environment | conf,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.splitlines()


def admin(cluster: LocalCluster, *arguments: str) -> None:
    """Run Hadoop's own dfsadmin."""
    (pyspark,) = HADOOP.parent.glob(".venv/lib/python3.*/site-packages/pyspark/jars")
    classes = f"{cluster.run / 'conf'}:{pyspark}/*:{HADOOP}/jars/*"
    main = "org.apache.hadoop.hdfs.tools.DFSAdmin"
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", classes, main, *arguments]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_renaming_onto_anything_is_refused(folder: str) -> None:
    storage, path = resolve(folder)
    for name in ("a", "b", "c/x", "d/x"):
        storage.write(f"{path}/{name}", b"1")
    for source, target in (("a", "b"), ("a", "d"), ("c", "d"), ("c", "b")):
        with pytest.raises(FileExistsError):
            storage.rename(f"{path}/{source}", f"{path}/{target}")
        assert storage.exists(f"{path}/{source}")


def test_writing_onto_a_folder_or_below_a_file_is_refused(folder: str) -> None:
    storage, path = resolve(folder)
    storage.write(f"{path}/file", b"1")
    with pytest.raises(IsADirectoryError):
        storage.write(path, b"2")
    with pytest.raises(NotADirectoryError):
        storage.write(f"{path}/file/x", b"2")
    assert [entry.name for entry in list_folder(folder)] == ["file"]


def test_the_longest_name_of_hdfs_can_be_written(folder: str) -> None:
    storage, path = resolve(join(folder, "ü" * 127 + "x"))
    storage.write(path, b"1")
    assert storage.read(path, 2) == b"1"


def test_a_folder_of_another_user_is_one_line(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eagle_spark.io.hdfs import HdfsStorage

    monkeypatch.setenv("HADOOP_USER_NAME", "somebody")
    storage = HdfsStorage(cluster.uri.removeprefix("hdfs://"))
    with pytest.raises(PermissionError, match=r"^Permission denied: user=somebody.*-x$"):
        storage.write("/not-mine", b"1")


@contextmanager
def quota(cluster: LocalCluster, uri: str) -> Iterator[None]:
    """Allow less than one block below a folder."""
    admin(cluster, "-setSpaceQuota", "1m", resolve(uri)[1])
    yield


@contextmanager
def safe_mode(cluster: LocalCluster, uri: str) -> Iterator[None]:
    admin(cluster, "-safemode", "enter")
    try:
        yield
    finally:
        admin(cluster, "-safemode", "leave")


@pytest.mark.parametrize(
    ("trouble", "message"),
    [(quota, "DiskSpace quota of .* is exceeded"), (safe_mode, "Name node is in safe mode")],
)
def test_a_write_that_hdfs_refuses_is_one_line_and_leaves_nothing(
    cluster: LocalCluster, folder: str, trouble: object, message: str
) -> None:
    storage, path = resolve(folder)
    storage.write(f"{path}/there", b"1")
    with trouble(cluster, folder):  # type: ignore[operator]
        for write in (storage.write, storage.create):
            with pytest.raises(OSError, match=message) as caught:
                write(f"{path}/x", b"2" * 1000)
            assert "\n" not in str(caught.value)
            assert "org.apache" not in str(caught.value)
        assert storage.read(f"{path}/there", 2) == b"1"
    assert everything(cluster, folder) == {folder.rsplit("/", 1)[1], "there"}


@pytest.fixture
def nameservice(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Return the name of two NameNodes, the first one dead; the default file system."""
    name = f"ns{uuid4().hex[:8]}"
    provider = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # bound, not listening
        settings = {
            "dfs.nameservices": name,
            f"dfs.ha.namenodes.{name}": "nn1, nn2",
            f"dfs.namenode.rpc-address.{name}.nn1": f"127.0.0.1:{dead.getsockname()[1]}",
            f"dfs.namenode.rpc-address.{name}.nn2": cluster.uri.removeprefix("hdfs://"),
            f"dfs.client.failover.proxy.provider.{name}": provider,
            "fs.permissions.umask-mode": "027",
        }
        for file, content in (
            ("core-site.xml", {"fs.defaultFS": f"hdfs://{name}"}),
            ("hdfs-site.xml", settings),
        ):
            properties = "".join(
                f"<property><name>{key}</name><value>{value}</value></property>"
                for key, value in content.items()
            )
            (tmp_path / file).write_text(f"<configuration>{properties}</configuration>")
        monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
        yield name


def test_a_nameservice_with_a_dead_namenode_uses_the_other_one_and_its_umask(
    cluster: LocalCluster, nameservice: str, folder: str, tmp_path: Path
) -> None:
    path = resolve(folder)[1]
    assert absolute_uri(f"hdfs://{path}/x") == f"hdfs://{nameservice}{path}/x"
    storage, _ = resolve(f"hdfs://{path}")
    storage.write(f"{path}/a b/x", b"1")
    storage.rename(f"{path}/a b/x", f"{path}/y")
    (entry,) = list_folder(f"hdfs://{nameservice}{path}")
    assert entry.uri == f"hdfs://{nameservice}{path}/y"
    assert resolve(join(folder, "y"))[0].read(f"{path}/y", 2) == b"1"
    for words, expected in (("-cat",), "1"), (("-stat", "%a"), "640"):
        lines = shell(cluster, "fs", *words, entry.uri, HADOOP_CONF_DIR=str(tmp_path))
        assert lines == [expected]


@pytest.mark.extended("kills a DataNode and starts it again", seconds=40)
def test_a_killed_datanode_disturbs_neither_writers_nor_readers(
    cluster: LocalCluster, folder: str
) -> None:
    data = os.urandom(3 << 20)
    storage, path = resolve(folder)
    storage.write(f"{path}/read", data)
    killed = Event()

    def write(worker: int) -> list[str]:
        names: list[str] = []
        remaining = 2
        while remaining:
            remaining -= killed.is_set()
            names.append(f"{worker}-{len(names)}")
            write_file = storage.create if worker % 2 else storage.write
            write_file(f"{path}/{names[-1]}", data)
        return names

    def read() -> bool:
        remaining = 50
        while remaining:
            remaining -= killed.is_set()
            with storage.open(f"{path}/read") as stream:
                assert b"".join(iter(lambda: stream.read(1 << 18), b"")) == data
        return True

    try:
        with ThreadPoolExecutor(6) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            writers = [pool.submit(write, worker) for worker in range(4)]
            try:
                while len(list(list_folder(folder))) < 12:
                    assert not any(entry.done() for entry in (*readers, *writers))
                    time.sleep(0.05)
                os.kill(cluster.pids["datanode-1"], signal.SIGKILL)
            finally:
                killed.set()
        names = {name for writer in writers for name in writer.result()}
        assert all(reader.result() for reader in readers)
    finally:
        assert cluster.command("up", "--free-ports").returncode == 0
    assert everything(cluster, folder) == names | {folder.rsplit("/", 1)[1], "read"}
    for entry in list_folder(folder):
        assert storage.read(resolve(entry.uri)[1], len(data) + 1) == data
