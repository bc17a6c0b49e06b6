"""Upload of a folder or zip archive: accepted, refused, resumed. Local targets, no cluster."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from pathlib import Path

import pytest

from eagle_spark.errors import EagleError, InputError, OutputError
from eagle_spark.io import zip_source as rules
from eagle_spark.io.upload import upload
from tests.helpers.processes import run_eagle

FILES = {
    "COVID.metadata.xlsx": b"book",
    "Viral Pneumonia/images/a #1?.png": b"1" * 3000,
    "Viral Pneumonia/masks/100%.png": b"",
    "ü/日本.png": b"3",
}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(params=["folder", "zip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make = {"folder": make_folder, "zip": make_zip}[request.param]
    return make(tmp_path / "source", FILES | {".DS_Store": b"x", "__MACOSX/y": b"z"})


def figures(result: dict[str, object]) -> tuple[object, ...]:
    return tuple(result[key] for key in ("listed", "uploaded", "skipped", "bytes"))


def test_all_files_but_hidden_ones_are_uploaded(source: Path, tmp_path: Path) -> None:
    assert figures(upload(str(source), f"file://{tmp_path}/to")) == (4, 4, 0, 3005)
    assert content(tmp_path / "to") == FILES


def test_a_second_time_nothing_is_uploaded(source: Path, tmp_path: Path) -> None:
    upload(str(source), str(tmp_path / "to"))
    assert figures(upload(str(source), str(tmp_path / "to"))) == (4, 0, 4, 0)


def test_only_what_is_missing_or_of_another_length_is_uploaded(
    source: Path, tmp_path: Path
) -> None:
    upload(str(source), str(tmp_path / "to"))
    (tmp_path / "to" / "COVID.metadata.xlsx").unlink()
    (tmp_path / "to" / "Viral Pneumonia/images/a #1?.png").write_bytes(b"cut")
    (tmp_path / "to" / "stranger").write_bytes(b"stays")
    assert figures(upload(str(source), str(tmp_path / "to"))) == (4, 2, 2, 3004)
    assert content(tmp_path / "to") == FILES | {"stranger": b"stays"}


def test_an_interrupted_upload_leaves_complete_files_and_resumes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(stream: object, sink: object, size: int) -> None:
        sink.write(b"half")  # type: ignore[attr-defined]
        raise OSError("the line is cut")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", broken)
        with pytest.raises(EagleError, match="the line is cut; run the command again") as caught:
            upload(str(source), str(tmp_path / "to"))
    assert caught.value.exit_code == 1
    assert content(tmp_path / "to") == {}
    assert figures(upload(str(source), str(tmp_path / "to"))) == (4, 4, 0, 3005)


def test_a_file_that_arrives_shorter_fails_the_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "copyfileobj", lambda _stream, sink, _size: sink.write(b"x"))
    with pytest.raises(EagleError, match=r"wanted \d+ bytes; got 1"):
        upload(str(source), str(tmp_path / "to"))


CLIMBING = [
    "../x.png",
    "a/../../x.png",
    "C:/x.png",
    "C:x.png",
    "..\\x.png",
    "a/b\\x.png",
    "..",
    "../",
]


@pytest.mark.parametrize("name", CLIMBING)
def test_an_entry_outside_of_the_target_stops_the_upload(name: str, tmp_path: Path) -> None:
    source = make_zip(tmp_path / "x.zip", {"good.png": b"x", name: b"x" * (name != "../")})
    with pytest.raises(InputError) as caught:
        upload(str(source), str(tmp_path / "deep" / "to"))
    assert repr(name) in str(caught.value)
    assert not (tmp_path / "deep").exists()
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(kind: int, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("odd.png")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(entry, b"/etc/passwd")
    with pytest.raises(InputError, match=r"'odd.png' is a link or device"):
        upload(str(tmp_path / "x.zip"), str(tmp_path / "to"))


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "x.zip", {"secret.png": b"x"})
    data = bytearray(source.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flags in the archive's directory
    source.write_bytes(data)
    with pytest.raises(InputError, match=r"'secret.png' is encrypted"):
        upload(str(source), str(tmp_path / "to"))


def test_a_bomb_is_refused_and_its_largest_entry_named(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "x.zip", {"small.png": b"1", "bomb.png": bytes(10 << 20)})
    with pytest.raises(InputError, match=r"largest entry is 'bomb.png'"):
        upload(str(source), str(tmp_path / "to"))


def test_an_archive_beyond_the_total_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_TOTAL", 3000)
    with pytest.raises(InputError, match=r"a #1\?.png"):
        upload(str(make_zip(tmp_path / "x.zip", FILES)), str(tmp_path / "to"))


@pytest.mark.parametrize("second", ["a.png", "a.png/b.png"], ids=["twice", "file and folder"])
def test_two_entries_with_one_path_are_refused(second: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", b"1")
        if second == "a.png":
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr(second, b"2")
        else:
            archive.writestr(second, b"2")
    with pytest.raises(InputError, match=r"'a.png' (occurs twice|is a file and a folder)"):
        upload(str(tmp_path / "x.zip"), str(tmp_path / "to"))


def test_a_damaged_entry_is_named_and_not_published(tmp_path: Path) -> None:
    source = tmp_path / "x.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("a.png", b"0123456789")
    source.write_bytes(source.read_bytes().replace(b"0123456789", b"0123x56789"))
    with pytest.raises(InputError, match=r"'a.png' is damaged"):
        upload(str(source), str(tmp_path / "to"))
    assert content(tmp_path / "to") == {}


@pytest.mark.parametrize("data", [b"", b"no archive"])
def test_an_invalid_zip_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"x.zip: cannot be read as a zip archive"):
        upload(str(tmp_path / "x.zip"), str(tmp_path / "to"))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", {"a.png": b"x"})
    (source / "link.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"not a regular file: '.*link.png'"):
        upload(str(source), str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_a_file_at_the_target_is_refused(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", {"a.png": b"x"})
    (tmp_path / "to").write_bytes(b"x")
    with pytest.raises(OutputError, match="must be a folder"):
        upload(str(source), str(tmp_path / "to"))


def test_the_command_ends_with_one_json_line(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "x.zip", FILES)
    done = run_eagle("upload", source, tmp_path / "to", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["listed"] == result["uploaded"] + result["skipped"] == 4


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "x.zip", {"../x\ny.png": b"x"})
    done = run_eagle("upload", source, tmp_path / "to")
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 2
    assert len(done.stderr.splitlines()) == 1
    assert "../x\\ny.png" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["hdfs://u:secret@h/x", "to"],
        ["source", "hdfs://u:secret@h/x"],
        ["source", "to", "hdfs://u:secret@h/x"],
        ["source", "to", "--jobs", "hdfs://u:secret@h/x"],
    ],
)
def test_a_password_is_refused_and_not_printed(words: list[str]) -> None:
    done = run_eagle("upload", *words)
    assert done.returncode == 2
    assert done.stderr
    assert "secret" not in done.stdout + done.stderr
