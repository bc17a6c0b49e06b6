"""Files by URI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eagle_spark.errors import ImageRejected, InputError, Reason, SettingsError
from eagle_spark.storage import absolute_uri, join, list_folder, locate, read_image


@pytest.mark.parametrize("uri", ["/a/b", "file:///a/b", "file:/a/b", "/a/./b/", "file:///a/b/"])
def test_every_spelling_of_a_local_path_is_one_uri(uri: str) -> None:
    assert absolute_uri(uri) == "file:///a/b"


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
    found = {entry.uri: entry for entry in list_folder(str(tmp_path))}
    assert set(found) == {f"file://{tmp_path}/a b/ü#1?%20.png", f"file://{tmp_path}/c.txt"}
    entry = found[f"file://{tmp_path}/a b/ü#1?%20.png"]
    assert entry.length == 5
    assert entry.name == "ü#1?%20.png"
    assert read_image(entry.uri, 10) == b"12345"


def test_links_are_listed_but_folders_behind_them_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    names = {entry.name for entry in list_folder(str(tmp_path))}
    assert names == {"loop", "broken"}


def test_a_missing_folder_and_a_file_in_its_place_are_named(tmp_path: Path) -> None:
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
def test_what_is_no_regular_file_is_unreadable(tmp_path: Path, make: object) -> None:
    make(tmp_path / "x.png")  # type: ignore[operator]
    with pytest.raises(ImageRejected) as caught:
        read_image(str(tmp_path / "x.png"), 10)
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
            locate("x.png" if os.getcwd() == str(tmp_path) else str(secret))[0].read("x.png", 1)
        except PermissionError:
            os._exit(13)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 13


def test_reading_stops_one_byte_behind_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234567890")
    assert len(read_image(str(tmp_path / "x"), 4)) == 5


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    storage, path = locate(str(tmp_path / "deep" / "x"))
    storage.write(path, b"one")
    storage.write(path, b"two")
    assert Path(path).read_bytes() == b"two"
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["x"]


def test_join_does_not_double_slashes() -> None:
    assert join("hdfs://n/a/", "b", "c") == "hdfs://n/a/b/c"
