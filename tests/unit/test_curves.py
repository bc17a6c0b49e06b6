"""The eight plots of a training log."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eagle_spark.errors import InputError
from eagle_spark.report.curves import (
    COLUMNS,
    CURVES,
    DPI,
    SIZE,
    draw_curve,
    lines_of,
    main,
    parse_log,
    read_log,
)

NAMES = [
    *("accuracy", "loss", "segmentation_loss", "epoch_time"),
    *("cpu", "ram", "gpu", "gpu_memory"),
]
BY_NAME = {curve.name: curve for curve in CURVES}


def log(epochs: int, ranks: int, *, gpu: bool = False, validation: bool = True) -> bytes:
    """Return a log in the form that training leaves."""
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        for rank in range(ranks):
            figures = {
                "accuracy": 1 - 0.2 / epoch,
                "loss": 0.6 / epoch,
                "segmentation_loss": 0.5 / epoch,
            }
            held_out = {f"val_{name}": 0.9 * value for name, value in figures.items()}
            rows.append(
                {
                    "epoch": epoch,
                    "rank": rank,
                    **figures,
                    **(held_out if validation else {}),
                    "seconds": 17 + rank,
                    "cpu_percent": 60 + 5 * rank,
                    "ram": 1.4e9 + 1e8 * rank,
                    "gpu_percent": 40 + rank if gpu else None,
                    "gpu_memory_percent": 30 + rank if gpu else None,
                }
            )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def without_column(data: bytes, name: str) -> bytes:
    rows = list(csv.reader(io.StringIO(data.decode())))
    place = rows[0].index(name)
    return "".join(",".join([*row[:place], *row[place + 1 :]]) + "\n" for row in rows).encode()


@pytest.mark.parametrize(("epochs", "ranks"), [(1, 1), (1, 3), (2, 2), (30, 1), (30, 3)])
def test_a_log_gives_eight_different_pictures(tmp_path: Path, epochs: int, ranks: int) -> None:
    (tmp_path / "log.csv").write_bytes(log(epochs, ranks, gpu=True))
    assert main([str(tmp_path / "log.csv"), "--out", str(tmp_path / "new" / "plots")]) == 0
    found = sorted((tmp_path / "new" / "plots").iterdir())
    assert [path.name for path in found] == sorted(f"{name}.png" for name in NAMES)
    drawn = [pixels(path.read_bytes()) for path in found]
    assert {picture.shape for picture in drawn} == {(int(SIZE[1] * DPI), int(SIZE[0] * DPI), 3)}
    assert len({picture.tobytes() for picture in drawn}) == len(NAMES)
    for picture in drawn:  # lines or markers in the frame, far from the text around it
        inside = picture[160:560, 150:1150].reshape(-1, 3).astype(int)
        assert (np.ptp(inside, axis=1) > 60).sum() > 50, "nothing coloured is drawn"


def test_more_epochs_and_more_ranks_change_the_picture() -> None:
    drawn = [draw_curve(BY_NAME["ram"], parse_log(log(*size), "x")) for size in ((1, 1), (2, 1))]
    drawn.append(draw_curve(BY_NAME["ram"], parse_log(log(2, 2), "x")))
    assert len({pixels(png).tobytes() for png in drawn}) == 3


def test_training_and_validation_are_drawn_once_and_loads_for_each_rank() -> None:
    read = parse_log(log(2, 3), "x")
    assert [line.label for line in lines_of(BY_NAME["loss"], read)] == ["training", "validation"]
    ram = lines_of(BY_NAME["ram"], read)
    assert [line.label for line in ram] == ["rank 0", "rank 1", "rank 2"]
    assert [list(line.values) for line in ram] == [[1.4, 1.4], [1.5, 1.5], [1.6, 1.6]]
    assert len({line.colour for line in ram}) == 3


def test_without_a_validation_split_training_is_drawn_alone() -> None:
    read = parse_log(log(2, 1, validation=False), "x")
    assert [line.label for line in lines_of(BY_NAME["accuracy"], read)] == ["training"]


def test_without_a_gpu_the_picture_says_so() -> None:
    read = parse_log(log(2, 2), "x")
    for name in ("gpu", "gpu_memory"):
        assert lines_of(BY_NAME[name], read) == []
        assert BY_NAME[name].missing == "not measured: no GPU"
        picture = pixels(draw_curve(BY_NAME[name], read))
        assert (picture[320:400, 400:900] < 160).any(), "no words in the middle"
        assert (picture[160:300, 150:1150] == 255).all(), "a frame"


def test_an_epoch_that_a_rank_lacks_is_a_gap() -> None:
    lines = log(3, 2).decode().splitlines()
    del lines[4]  # epoch 2 of rank 1
    read = parse_log("\n".join(lines).encode(), "x")
    found = read.values[1]["seconds"]
    assert [math.isnan(value) for value in found] == [False, True, False]
    draw_curve(BY_NAME["epoch_time"], read)


@pytest.mark.parametrize("ranks", [8, 20])
def test_many_ranks_can_be_drawn(ranks: int) -> None:
    pixels(draw_curve(BY_NAME["cpu"], parse_log(log(200, ranks), "x")))


def test_the_log_may_have_an_address() -> None:
    with pytest.raises(InputError, match=r"no such file: file:///nowhere/log\.csv"):
        read_log("file:///nowhere/log.csv")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not a CSV file"),
        (b"", "columns are missing: epoch, rank, accuracy"),
        (b"<html><body>404</body></html>\n", "columns are missing"),
        (without_column(log(1, 1), "ram"), "columns are missing: ram"),
        (log(1, 1).splitlines()[0], "holds no epoch"),
        (log(1, 1).replace(b"1400000000.0", b"much"), "line 2, column ram: wanted a number"),
        (log(1, 1).replace(b"\n1,0", b"\n1.5,0"), "line 2, column epoch: wanted a whole number"),
        (log(1, 1) + b"2,0,0.5\n", "line 3: wanted 13 columns"),
        (log(1, 1) + log(1, 1).split(b"\n", 1)[1], "line 3: epoch 1 of rank 0 stands there twice"),
    ],
)
def test_what_is_no_log_gets_one_line_and_exit_code_2(
    data: bytes, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(data)
    assert main([str(path), "--out", str(tmp_path / "plots")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {path}")
    assert wanted in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("name", COLUMNS)
def test_every_missing_column_is_named(name: str) -> None:
    with pytest.raises(InputError, match=rf"^here: .*missing: {name}$"):
        parse_log(without_column(log(1, 1, gpu=True), name), "here")


def test_a_missing_log_and_a_folder_get_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {tmp_path / "none.csv": "no such file", tmp_path: "is a folder"}
    for given, words in wanted.items():
        assert main([str(given), "--out", str(tmp_path / "plots")]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def test_a_place_that_cannot_be_written_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_bytes(log(1, 1))
    (tmp_path / "taken").write_bytes(b"")
    assert main([str(tmp_path / "log.csv"), "--out", str(tmp_path / "taken")]) == 2
    assert "taken" in capsys.readouterr().err


def test_help_loads_no_matplotlib() -> None:
    code = (
        "import sys; from eagle_spark.report.curves import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: assert not {'matplotlib', 'pyspark', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
