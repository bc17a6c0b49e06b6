"""The PyInstaller folder, run outside the checkout, without Python, on a virtual display."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import uid

from eagle_spark.viewer.examine import ImageAnalyzer
from tests.helpers.dicom_files import SYNTAXES
from tests.helpers.prerequisites import skip_without
from tests.helpers.sample_images import SAMPLE_IMAGES, write_file

pytestmark = [
    pytest.mark.train,
    pytest.mark.extended("freezes the window with its libraries, 0.4 GB", seconds=30),
]

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_MEGABYTES = 420
TIMEOUT = 60  # seconds
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
BANNER_COLOUR = (0x3B, 0x2A, 0x12)  # RGB, background of the research notice
BAR_COLOUR = (0x26, 0xA6, 0xF2)  # RGB, bar of the most probable class


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the folder of `make viewer-dist`, outside the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    options = ["--noconfirm", "--log-level", "WARN", "--workpath", str(folder / "work")]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "PyInstaller",
            *options,
            "--distpath",
            str(folder),
            "conf/viewer.spec",
        ],
        cwd=ROOT,
        check=True,
        timeout=600,
    )
    return folder / "eagle-view"


@pytest.fixture
def display(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Start Xvfb; yield the display's name and the file of its frame buffer."""
    program = shutil.which("Xvfb")
    if not program:
        skip_without("Xvfb is not installed (Debian: xvfb)")
    read, write = os.pipe()
    server = subprocess.Popen(
        [
            str(program),
            "-displayfd",
            str(write),
            "-screen",
            "0",
            "1280x900x24",
            "-fbdir",
            str(tmp_path),
        ],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as stream:
        yield f":{stream.readline().strip()}", tmp_path / "Xvfb_screen0"
    server.terminate()
    server.wait()


def read_screen(file: Path) -> NDArray[np.uint8]:
    """Return the pixels of an XWD file, RGB `(height, width, 3)`."""
    data = file.read_bytes()
    header = struct.unpack(">25I", data[:100])
    size, width, height, line, colours = (header[i] for i in (0, 4, 5, 12, 19))
    pixels = np.frombuffer(data, np.uint8, line * height, size + 12 * colours)
    return pixels.reshape(height, line // 4, 4)[:, :width, 2::-1]


def contains_colour(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return int(np.all(pixels == colour, axis=2).sum()) > 200


def test_the_folder_is_small(dist: Path) -> None:
    files = [path for path in dist.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) / 1e6 < MAX_MEGABYTES


def test_eagle_predict_runs_without_python(dist: Path, model_folder: Path, tmp_path: Path) -> None:
    good = write_file(tmp_path / "x.png", SAMPLE_IMAGES["grey.png"]())
    bad = write_file(tmp_path / "y.png", SAMPLE_IMAGES["truncated.png"]())
    command = [dist / "eagle-predict", "--model", model_folder, good, bad]
    process = subprocess.run(
        [str(part) for part in command], cwd=tmp_path, env={}, capture_output=True, timeout=TIMEOUT
    )
    assert (process.returncode, process.stderr) == (0, b"")
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert lines[1]["reason"] == "truncated"
    analyzer = ImageAnalyzer(str(model_folder))
    expected = analyzer.to_record(analyzer.analyze(str(good)))
    for record in (lines[0], expected):
        # The folder contains only one of the exported engines.
        del record["seconds"], record["engine"]
    assert lines[0] == expected


def test_dicom_transfer_syntaxes(dist: Path, model_folder: Path, tmp_path: Path) -> None:
    for index, (make, _) in enumerate(SYNTAXES.values()):
        write_file(tmp_path / f"{index:02d}.dcm", make())
    command = [dist / "eagle-predict", "--model", model_folder, tmp_path]
    process = subprocess.run(
        [str(part) for part in command], env={}, capture_output=True, check=True, timeout=TIMEOUT
    )
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    # The JPEG decoder is under the GPL, so the folder, which is for redistribution, omits it.
    expected = ["no_decoder" if syntax in JPEG else None for syntax in SYNTAXES]
    assert [line.get("reason") for line in lines] == expected


def test_eagle_view_shows_a_prediction(
    dist: Path, model_folder: Path, tmp_path: Path, display: tuple[str, Path]
) -> None:
    image = write_file(tmp_path / "x.png", SAMPLE_IMAGES["grey.png"]())
    display_name, screen_file = display
    command = [str(dist / "eagle-view"), "--model", str(model_folder), str(image)]
    window = subprocess.Popen(
        command, cwd=tmp_path, env={"DISPLAY": display_name, "HOME": str(tmp_path)}
    )
    try:
        deadline = time.monotonic() + TIMEOUT
        while not all(
            contains_colour(read_screen(screen_file), colour)
            for colour in (BANNER_COLOUR, BAR_COLOUR)
        ):
            assert window.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        window.terminate()
        window.wait()
