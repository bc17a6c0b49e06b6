"""Files by URI."""

from __future__ import annotations

import io
import os
import resource
import shutil
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, ClassVar

import pytest

from eagle_spark.errors import ImageRejectedError, InputError, Reason, SettingsError
from eagle_spark.io import absolute_uri, is_hidden, join, list_folder, read_bytes, resolve
from eagle_spark.io.hadoop_conf import _read_settings as site_cache
from eagle_spark.io.hadoop_conf import read_file_permission


@pytest.mark.parametrize("uri", ["/a/b", "file:///a/b", "file:/a/b", "/a/./b/", "file:///a/b/"])
def test_every_spelling_of_a_local_path_is_one_uri(uri: str) -> None:
    assert absolute_uri(uri) == "file:///a/b"


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "_SUCCESS", "Thumbs.db", "ehthumbs.db", "Desktop.ini", "a:Zone.Identifier"],
)
def test_files_of_the_system_are_hidden(name: str) -> None:
    assert is_hidden(name)
    assert not is_hidden(f"{name}.png" if name[0] not in "._" else "DS_Store")


def test_hdfs_uris_keep_their_authority() -> None:
    assert absolute_uri("hdfs://name:8020/a b/c#d/") == "hdfs://name:8020/a b/c#d"


@pytest.mark.parametrize("uri", ["s3://bucket/x", "http://host/x", "file://host/x"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(SettingsError):
        absolute_uri(uri)


def test_listing_is_recursive_and_leaves_hidden_names_out(tmp_path: Path) -> None:
    for name in ("a b/ü#1?%20.png", "c.txt", ".hidden", "_tmp/x.png", "d/.git/y"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
    entries = {entry.uri: entry for entry in list_folder(str(tmp_path))}
    assert set(entries) == {f"file://{tmp_path}/a b/ü#1?%20.png", f"file://{tmp_path}/c.txt"}
    entry = entries[f"file://{tmp_path}/a b/ü#1?%20.png"]
    assert entry.length == 5
    assert entry.name == "ü#1?%20.png"
    assert read_bytes(entry.uri, 10) == b"12345"


def test_links_are_listed_but_folders_behind_them_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    names = {entry.name for entry in list_folder(str(tmp_path))}
    assert names == {"loop", "broken"}


def test_an_entry_deleted_during_the_listing_is_not_listed(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "3.png", "kept/a.png", "gone/b.png", "replaced/c.png"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    entries = list_folder(str(tmp_path))
    first = next(entries).name  # the names of the others are listed by now
    for file in tmp_path.glob("?.png"):
        file.unlink()
    shutil.rmtree(tmp_path / "gone")
    shutil.rmtree(tmp_path / "replaced")
    (tmp_path / "replaced").touch()
    assert {entry.name for entry in entries} - {"replaced"} == {"a.png"}
    assert first in ("1.png", "2.png", "3.png")


class LosingClient:
    """A NameNode that has lost `/root/gone` since it named it, as hdfs-native shows that."""

    FOLDERS: ClassVar = {
        "/root": ["/root/gone/", "/root/_tmp/", "/root/kept/", "/root/1.png"],
        "/root/kept": ["/root/kept/a.png", "/root/kept/.hidden"],
    }

    def get_file_info(self, path: str) -> SimpleNamespace:
        if path not in self.FOLDERS:
            raise FileNotFoundError(path)
        return SimpleNamespace(isdir=True)

    def list_status(self, path: str, recursive: bool) -> Iterator[SimpleNamespace]:
        self.get_file_info(path)
        for name in self.FOLDERS[path]:
            child = name.rstrip("/")
            folder = child != name
            yield SimpleNamespace(path=child, isdir=folder, length=1, modification_time=2)
            if folder and recursive:
                yield from self.list_status(child, recursive)


def test_a_folder_deleted_from_hdfs_is_not_listed() -> None:
    from eagle_spark.io.hdfs import HdfsStorage

    storage = HdfsStorage.__new__(HdfsStorage)
    storage.prefix, storage._client = "hdfs://n", LosingClient()
    assert [(entry.uri, entry.length, entry.modified) for entry in storage.list_files("/root")] == [
        ("hdfs://n/root/1.png", 1, 2),
        ("hdfs://n/root/kept/a.png", 1, 2),
    ]
    with pytest.raises(FileNotFoundError):
        list(storage.list_files("/nowhere"))


def test_a_missing_folder_and_a_file_at_its_path_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder: /nowhere/at/all"):
        list(list_folder("/nowhere/at/all"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not a folder"):
        list(list_folder(str(tmp_path / "file")))


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [make_fifo, make_loop, Path.mkdir], ids=["fifo", "loop", "folder"])
def test_a_file_that_is_not_regular_is_unreadable(tmp_path: Path, make: object) -> None:
    make(tmp_path / "x.png")  # type: ignore[operator]
    with pytest.raises(ImageRejectedError) as caught:
        read_bytes(str(tmp_path / "x.png"), 10)
    assert caught.value.reason is Reason.UNREADABLE


def test_a_file_without_read_permission_is_unreadable(tmp_path: Path) -> None:
    secret = tmp_path / "x.png"
    secret.write_bytes(b"1")
    secret.chmod(0)
    tmp_path.chmod(0o755)
    # Root reads everything: a child without root's rights has to try.
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.chdir(tmp_path)
            os.setresuid(65534, 65534, 65534)
        try:
            resolve("x.png" if os.getcwd() == str(tmp_path) else str(secret))[0].read("x.png", 1)
        except PermissionError:
            os._exit(13)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 13


def test_reading_stops_one_byte_after_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234567890")
    assert len(read_bytes(str(tmp_path / "x"), 4)) == 5


def test_reading_allocates_no_more_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234567890")
    storage, path = resolve(str(tmp_path / "x"))
    tracemalloc.start()
    try:
        assert storage.read(path, 2**28) == b"1234567890"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("limit", [0, 1, 9, 10, 11, 12])
def test_reading_returns_the_bytes_up_to_the_limit(tmp_path: Path, limit: int) -> None:
    (tmp_path / "x").write_bytes(b"1234567890")
    storage, path = resolve(str(tmp_path / "x"))
    assert storage.read(path, limit) == b"1234567890"[:limit]


@pytest.mark.parametrize("limit", [3, 2**20])
def test_a_file_that_is_longer_than_its_size_is_read_to_the_limit(limit: int) -> None:
    storage, path = resolve("/proc/self/cmdline")  # its size is 0
    assert storage.read(path, limit) == Path(path).read_bytes()[:limit]


def test_writing_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    storage, path = resolve(str(tmp_path / "deep" / "x"))
    storage.write(path, b"one")
    storage.write(path, b"two")
    assert Path(path).read_bytes() == b"two"
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["x"]


class Breaking(io.BytesIO):
    """A source that breaks off after its first block."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError("the line is cut")
        return super().read(size)


def breaking() -> IO[bytes]:
    return Breaking(b"half")


def test_a_failing_source_leaves_the_old_file(tmp_path: Path) -> None:
    storage, path = resolve(str(tmp_path / "x"))
    storage.write(path, b"old")
    with pytest.raises(OSError, match="the line is cut"):
        storage.put(path, breaking)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x", b"old")]


def test_the_longest_name_of_the_disk_can_be_written(tmp_path: Path) -> None:
    storage, path = resolve(str(tmp_path / ("ü" * 127 + "x")))
    storage.write(path, b"1")
    assert storage.read(path, 2) == b"1"


def test_a_new_file_is_created_with_its_folders(tmp_path: Path) -> None:
    storage, path = resolve(str(tmp_path / "deep" / "x"))
    storage.create(path, b"one")
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "deep").iterdir()] == [
        ("x", b"one")
    ]


def test_a_file_that_exists_is_not_created(tmp_path: Path) -> None:
    storage, path = resolve(str(tmp_path / "x"))
    storage.create(path, b"one")
    with pytest.raises(FileExistsError):
        storage.create(path, b"two")
    assert Path(path).read_bytes() == b"one"


@pytest.fixture
def short_files() -> Iterator[None]:
    """Let the kernel refuse to write more than 1,000 bytes to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("short_files")
@pytest.mark.parametrize("length", [1001, 1 << 20])  # written at closing, and before
def test_a_failed_creation_leaves_nothing(tmp_path: Path, length: int) -> None:
    storage, path = resolve(str(tmp_path / "x"))
    with pytest.raises(OSError, match="File too large"):
        storage.create(path, bytes(length))
    assert list(tmp_path.iterdir()) == []


class FailingClient:
    """A NameNode whose DataNodes fail in the first attempts, as hdfs-native shows that."""

    def __init__(self, failures: int) -> None:
        self.files: dict[str, bytes] = {}
        self.failures = failures
        self.inner = self

    def create(self, path: str, options: Any) -> FailingClient:
        if path in self.files and not options.overwrite:
            raise FileExistsError(path)
        self.path, self.files[path] = path, b""
        return self

    def write(self, data: bytes) -> None:
        self.files[self.path] += data[:3]
        if self.failures:
            self.failures -= 1
            raise RuntimeError('DataTransferError("no DataNode")')
        self.files[self.path] += data[3:]

    def close(self) -> None:
        pass

    def delete(self, path: str) -> None:
        raise RuntimeError(f"the connection is lost: {path}")


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_file_of_hdfs_is_created_again_over_its_own_part(
    failures: int, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eagle_spark.io import hdfs

    monkeypatch.setattr(hdfs, "_RETRY_PAUSES", (0, 0))
    client = FailingClient(failures)
    storage = hdfs.HdfsStorage.__new__(hdfs.HdfsStorage)
    storage.prefix, storage._client = "hdfs://n", client
    with nullcontext() if failures < 3 else pytest.raises(OSError, match="no DataNode"):
        storage.create("/x", b"content")
    assert client.files == {"/x": b"content" if failures < 3 else b"con"}


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir], ids=["file", "folder"])
def test_renaming_onto_anything_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    storage, path = resolve(str(tmp_path))
    with pytest.raises(FileExistsError):
        storage.rename(f"{path}/a", f"{path}/b")
    assert (tmp_path / "a").exists()


def test_join_does_not_double_slashes() -> None:
    assert join("hdfs://n/a/", "b", "c") == "hdfs://n/a/b/c"


@pytest.mark.parametrize(
    "uri",
    [
        "hdfs://user:secret@host:8020/x",
        "hdfs://secret@host/x",
        "hdfs://user:sec/ret@host/x",
        "file://user:secret@host/x",
        "s3://user:secret@bucket/x",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(uri)
    for part in ("secret", "sec", "ret@", "user:"):
        assert part not in str(caught.value)


def write_site(folder: Path, name: str, **settings: str) -> None:
    """Write a site file; `__` in a key is a dot."""
    properties = (
        f"<property><name>{key.replace('__', '.')}</name><value>\n {value}\n</value></property>"
        for key, value in settings.items()
    )
    (folder / name).write_text(f"<configuration>{''.join(properties)}</configuration>")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty HADOOP_CONF_DIR."""
    folder = tmp_path / "conf"
    folder.mkdir()
    monkeypatch.setenv("HADOOP_CONF_DIR", str(folder))
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    return folder


@pytest.mark.parametrize("address", ["hdfs://name:9000", "hdfs://name:9000/"])
def test_hdfs_without_a_host_is_the_default_file_system(site: Path, address: str) -> None:
    write_site(site, "core-site.xml", fs__defaultFS=address)
    assert absolute_uri("hdfs:///a b/c") == "hdfs://name:9000/a b/c"


@pytest.mark.parametrize("address", ["file:///", "s3a://key:secret@bucket", "hdfs:///x", None])
def test_a_default_file_system_other_than_hdfs_is_refused(site: Path, address: str | None) -> None:
    if address:
        write_site(site, "core-site.xml", fs__defaultFS=address)
    with pytest.raises(SettingsError, match=r"fs\.defaultFS") as caught:
        absolute_uri("hdfs:///a")
    assert "secret" not in str(caught.value)


def test_hdfs_without_a_host_and_without_configuration_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    with pytest.raises(SettingsError, match="no HADOOP_CONF_DIR is set"):
        absolute_uri("hdfs:///a")


@pytest.mark.parametrize(("umask", "bits"), [(None, 0o644), ("027", 0o640), ("0077", 0o600)])
def test_new_files_have_the_mode_of_the_umask(site: Path, umask: str | None, bits: int) -> None:
    if umask:
        write_site(site, "core-site.xml", **{"fs__permissions__umask-mode": umask})
    assert read_file_permission() == bits


def test_a_umask_in_symbols_is_refused(site: Path) -> None:
    write_site(site, "core-site.xml", **{"fs__permissions__umask-mode": "u=rwx,g=rx,o="})
    with pytest.raises(SettingsError, match=r"umask-mode.*027; got u=rwx"):
        read_file_permission()


def test_the_key_of_hadoop_1_is_supported(site: Path) -> None:
    write_site(site, "core-site.xml", fs__default__name="hdfs://old:9000")
    assert absolute_uri("hdfs:///a") == "hdfs://old:9000/a"


def test_variables_are_replaced(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMENODE_PORT", "9001")
    monkeypatch.setenv("EMPTY", "")
    address = "hdfs://${master}:${env.NAMENODE_PORT}${env.EMPTY-x}${env.EMPTY:-}${env.NO-}"
    write_site(site, "core-site.xml", fs__defaultFS=address, master="${master.host}")
    write_site(site, "hdfs-site.xml", master__host="nn")
    assert absolute_uri("hdfs:///a") == "hdfs://nn:9001/a"


@pytest.mark.parametrize("value", ["${loop}", "${nothing}", "${env.A:B}"])
def test_an_undefined_variable_is_kept(site: Path, value: str) -> None:
    write_site(site, "core-site.xml", fs__defaultFS=f"hdfs://{value}", loop="${loop}")
    with pytest.raises(SettingsError):
        absolute_uri("hdfs:///a")


INCLUDE = '<configuration xmlns:xi="http://www.w3.org/2001/XInclude">{}</configuration>'


@pytest.mark.parametrize("is_absolute", [False, True])
def test_included_files_are_read(site: Path, is_absolute: bool) -> None:
    prefix = f"file://{site}/" if is_absolute else ""
    (site / "core-site.xml").write_text(
        INCLUDE.format(f'<xi:include href="{prefix}more/other.xml"/>')
    )
    (site / "more").mkdir()
    write_site(site / "more", "other.xml", fs__defaultFS="hdfs://nn:9000")
    assert absolute_uri("hdfs:///a") == "hdfs://nn:9000/a"


def test_an_included_file_that_is_missing_is_named_or_replaced(site: Path) -> None:
    (site / "core-site.xml").write_text(INCLUDE.format('<xi:include href="no.xml"/>'))
    with pytest.raises(
        SettingsError, match=r"core-site\.xml: includes .*no\.xml, which is missing"
    ):
        absolute_uri("hdfs:///a")
    fallback = "<property><name>fs.defaultFS</name><value>hdfs://nn:1</value></property>"
    (site / "core-site.xml").write_text(
        INCLUDE.format(
            f'<xi:include href="no.xml"><xi:fallback>{fallback}</xi:fallback></xi:include> '
        )
    )
    site_cache.cache_clear()
    assert absolute_uri("hdfs:///a") == "hdfs://nn:1/a"


def test_cyclic_includes_end(site: Path) -> None:
    (site / "core-site.xml").write_text(INCLUDE.format('<xi:include href="core-site.xml"/>'))
    with pytest.raises(SettingsError, match="include each other"):
        absolute_uri("hdfs:///a")


def test_a_damaged_site_file_is_named(site: Path) -> None:
    (site / "core-site.xml").write_text("<configuration>")
    with pytest.raises(SettingsError, match=r"core-site\.xml: cannot be read"):
        absolute_uri("hdfs:///a")


@pytest.fixture
def silent() -> Iterator[int]:
    """Return a port that accepts connections and never responds."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_server_that_does_not_respond_is_named_in_time(
    site: Path, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eagle_spark.io import hdfs

    monkeypatch.setattr(hdfs, "CONNECT_SECONDS", 0)
    monkeypatch.setattr(hdfs, "_PROBE_SECONDS", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening
        uris = [f"127.0.0.1:{port}" for port in (closed.getsockname()[1], silent)]
        write_site(
            site,
            "hdfs-site.xml",
            dfs__ha__namenodes__away="one, two",
            **{"dfs.namenode.rpc-address.away.one": uris[0]},
            **{"dfs.namenode.rpc-address.away.two": uris[1]},
        )
        for authority in [*uris, "away", "no.such.host.invalid:8020", "a..b"]:
            with pytest.raises(InputError, match=f"^hdfs://{authority}: HDFS cannot be reached"):
                resolve(f"hdfs://{authority}/x")


def test_an_invalid_port_is_refused() -> None:
    with pytest.raises(SettingsError, match="host:port"):
        resolve("hdfs://host:99999/x")


def test_the_module_loads_nothing_heavy() -> None:
    program = "import sys, eagle_spark.io; print('hdfs_native' in sys.modules)"
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "False"
