from __future__ import annotations

from pathlib import Path

import pytest

from eagle_spark.datasets.split_file import SplitFile, read_split_file
from eagle_spark.errors import InputError

PATHS = ["file:///set/A/images/1.png", "file:///set/B/images/1.png", "file:///set/B/images/2.png"]
PATIENTS = ["p", None, "q"]


def written(folder: Path, text: str) -> SplitFile:
    (folder / "splits.csv").write_text(text, encoding="utf-8")
    return read_split_file(str(folder / "splits.csv"))


@pytest.mark.parametrize(
    "text",
    [
        "path,split\nA/images/1.png,val\nB/images/1.png,test\n2.png,train\nelse.png,train\n",
        "\ufeffsplit,note,path\r\nval,,file:///set/A/images/1.png\r\ntest,,B/images/1.png\r\n\r\n"
        'train,"a, b",2.png\r\n',
    ],
)
def test_a_path_is_the_end_of_one_images_uri(tmp_path: Path, text: str) -> None:
    assert written(tmp_path, text).assign(PATHS, PATIENTS) == ["val", "test", "train"]


def test_a_patient_is_one_line(tmp_path: Path) -> None:
    split_file = written(tmp_path, "patient_id,split\np,test\nq,train\n")
    assert split_file.assign([*PATHS[::2], PATHS[1]], ["p", "q", "p"]) == ["test", "train", "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,split\n1.png,val\n2.png,val\n", "'1.png' fits 2 images, such as .*A/images/1.png"),
        ("path,split\n2.png,val\n", "got no line for file:///set/A/images/1.png"),
        ("path,split\nA/images/1.png,val\n1.png,test\n", "got lines of test, val for .*A/images"),
        ("patient_id,split\np,val\nq,val\n", r"got no line for .*B/images/1.png \(patient None\)"),
    ],
)
def test_every_image_needs_one_split(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        written(tmp_path, text).assign(PATHS, PATIENTS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header path,split"),
        ("name,split\na,val\n", "got name,split"),
        ("path,patient_id,split\n", "got path,patient_id,split"),
        ("path,split\na,validation\n", "line 2: .* train, val, test, .* got 'a,validation'"),
        ("path,split\na,val\n\na,test\n", "line 4: .* in one split; got 'a,test'"),
        ("path,split\na\n", "line 2: "),
        ('path,split\n"a,val\n', "wanted a CSV"),
    ],
)
def test_an_invalid_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"`split_file` .*{message}"):
        written(tmp_path, text)


def test_a_missing_split_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`split_file` .*gone\.csv cannot be read"):
        read_split_file(str(tmp_path / "gone.csv"))
