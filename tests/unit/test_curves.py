"""The eight plots of a training log."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from collections.abc import Callable
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
    FIGURE_SIZE,
    draw_curve,
    parse_log,
    read_log,
    select_lines,
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
def test_a_log_gives_eight_different_plots(
    tmp_path: Path, eagle: Callable[..., int], epochs: int, ranks: int
) -> None:
    (tmp_path / "log.csv").write_bytes(log(epochs, ranks, gpu=True))
    assert eagle("plots", tmp_path / "log.csv", "--out", tmp_path / "new" / "plots") == 0
    paths = sorted((tmp_path / "new" / "plots").iterdir())
    assert [path.name for path in paths] == sorted(f"{name}.png" for name in NAMES)
    drawn = [pixels(path.read_bytes()) for path in paths]
    assert {picture.shape for picture in drawn} == {
        (int(FIGURE_SIZE[1] * DPI), int(FIGURE_SIZE[0] * DPI), 3)
    }
    assert len({picture.tobytes() for picture in drawn}) == len(NAMES)
    for picture in drawn:  # lines or markers in the frame, far from the text around it
        inside = picture[160:560, 150:1150].reshape(-1, 3).astype(int)
        assert (np.ptp(inside, axis=1) > 60).sum() > 50, "nothing coloured is drawn"


def test_epochs_and_ranks_change_the_plot() -> None:
    drawn = [draw_curve(BY_NAME["ram"], parse_log(log(*size), "x")) for size in ((1, 1), (2, 1))]
    drawn.append(draw_curve(BY_NAME["ram"], parse_log(log(2, 2), "x")))
    assert len({pixels(png).tobytes() for png in drawn}) == 3


def test_training_and_validation_are_drawn_once_and_loads_for_each_rank() -> None:
    read = parse_log(log(2, 3), "x")
    assert [line.label for line in select_lines(BY_NAME["loss"], read)] == [
        "training",
        "validation",
    ]
    ram = select_lines(BY_NAME["ram"], read)
    assert [line.label for line in ram] == ["rank 0", "rank 1", "rank 2"]
    assert [list(line.values) for line in ram] == [[1.4, 1.4], [1.5, 1.5], [1.6, 1.6]]
    assert len({line.colour for line in ram}) == 3


def test_without_a_validation_split_training_is_drawn_alone() -> None:
    read = parse_log(log(2, 1, validation=False), "x")
    assert [line.label for line in select_lines(BY_NAME["accuracy"], read)] == ["training"]


def test_without_a_gpu_the_plot_has_a_note() -> None:
    read = parse_log(log(2, 2), "x")
    for name in ("gpu", "gpu_memory"):
        assert select_lines(BY_NAME[name], read) == []
        assert BY_NAME[name].missing_text == "not measured: no GPU"
        picture = pixels(draw_curve(BY_NAME[name], read))
        assert (picture[320:400, 400:900] < 160).any(), "no words in the middle"
        assert (picture[160:300, 150:1150] == 255).all(), "a frame"


def test_a_missing_epoch_of_a_rank_is_a_gap() -> None:
    lines = log(3, 2).decode().splitlines()
    del lines[4]  # epoch 2 of rank 1
    read = parse_log("\n".join(lines).encode(), "x")
    seconds = read.values[1]["seconds"]
    assert [math.isnan(value) for value in seconds] == [False, True, False]
    draw_curve(BY_NAME["epoch_time"], read)


@pytest.mark.parametrize("ranks", [8, 20])
def test_many_ranks_can_be_drawn(ranks: int) -> None:
    pixels(draw_curve(BY_NAME["cpu"], parse_log(log(200, ranks), "x")))


def test_the_log_may_have_a_uri() -> None:
    with pytest.raises(InputError, match=r"no such file: file:///nowhere/log\.csv"):
        read_log("file:///nowhere/log.csv")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not a CSV file"),
        (b"", "columns are missing: epoch, rank, accuracy"),
        (b"<html><body>404</body></html>\n", "columns are missing"),
        (without_column(log(1, 1), "ram"), "columns are missing: ram"),
        (log(1, 1).splitlines()[0], "contains no epoch"),
        (log(1, 1).replace(b"1400000000.0", b"much"), "line 2, column ram: wanted a number"),
        (log(1, 1).replace(b"\n1,0", b"\n1.5,0"), "line 2, column epoch: wanted a whole number"),
        (log(1, 1) + b"2,0,0.5\n", "line 3: wanted 13 columns"),
        (log(1, 1) + log(1, 1).split(b"\n", 1)[1], "line 3: duplicate row of epoch 1, rank 0"),
    ],
)
def test_an_invalid_log_is_one_line_and_exit_code_2(
    data: bytes,
    message: str,
    tmp_path: Path,
    eagle: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(data)
    assert eagle("plots", path, "--out", tmp_path / "plots") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {path}")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("name", COLUMNS)
def test_every_missing_column_is_named(name: str) -> None:
    with pytest.raises(InputError, match=rf"^here: .*missing: {name}$"):
        parse_log(without_column(log(1, 1, gpu=True), name), "here")


def test_a_missing_log_and_a_folder_are_one_line(
    tmp_path: Path, eagle: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {tmp_path / "none.csv": "no such file", tmp_path: "is a folder"}
    for path, words in expected.items():
        assert eagle("plots", path, "--out", tmp_path / "plots") == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_an_unwritable_folder_is_one_line(
    tmp_path: Path, eagle: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_bytes(log(1, 1))
    (tmp_path / "taken").write_bytes(b"")
    assert eagle("plots", tmp_path / "log.csv", "--out", tmp_path / "taken") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --out {tmp_path / 'taken'} cannot be written")
    assert error.count("\n") == 1


def test_help_loads_no_matplotlib() -> None:
    code = (
        "import sys; from eagle_spark.cli.main import main\n"
        "try: main(['plots', '--help'])\n"
        "except SystemExit: assert not {'matplotlib', 'pyspark', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
