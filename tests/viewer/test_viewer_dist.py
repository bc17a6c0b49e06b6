"""The frozen folder: run outside the checkout, without Python, on a display of its own."""

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

from eagle_spark.viewer.examine import Examiner
from tests.helpers.dicom_files import SYNTAXES
from tests.helpers.planted import PLANTED, put

pytestmark = [
    pytest.mark.train,
    pytest.mark.extended("freezes the window with its libraries, 0.4 GB", seconds=30),
]

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_MEGABYTES = 420
SECONDS = 60
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
BANNER = (0x3B, 0x2A, 0x12)  # RGB behind "research use only"
BAR = (0x26, 0xA6, 0xF2)  # of the likeliest class


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make viewer-dist` makes, in a folder that is not the checkout's."""
    folder = tmp_path_factory.mktemp("dist")
    words = ["--noconfirm", "--log-level", "WARN", "--workpath", str(folder / "work")]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "PyInstaller",
            *words,
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
    """A display of this test's own, and the file that holds what it shows."""
    program = shutil.which("Xvfb")
    if not program:
        missing = "Xvfb is not installed (Debian: xvfb)"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
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
    with os.fdopen(read) as number:
        yield f":{number.readline().strip()}", tmp_path / "Xvfb_screen0"
    server.terminate()
    server.wait()


def screen(file: Path) -> NDArray[np.uint8]:
    """The pixels of an XWD file, RGB `(height, width, 3)`."""
    data = file.read_bytes()
    header = struct.unpack(">25I", data[:100])
    size, width, height, line, colours = (header[i] for i in (0, 4, 5, 12, 19))
    pixels = np.frombuffer(data, np.uint8, line * height, size + 12 * colours)
    return pixels.reshape(height, line // 4, 4)[:, :width, 2::-1]


def has(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return int(np.all(pixels == colour, axis=2).sum()) > 200


def test_its_size(dist: Path) -> None:
    files = [path for path in dist.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) / 1e6 < MAX_MEGABYTES


def test_lines_without_python(dist: Path, model_folder: Path, tmp_path: Path) -> None:
    good = put(tmp_path / "x.png", PLANTED["grey.png"]())
    bad = put(tmp_path / "y.png", PLANTED["truncated.png"]())
    words = [dist / "eagle-predict", "--model", model_folder, good, bad]
    done = subprocess.run(
        [str(word) for word in words], cwd=tmp_path, env={}, capture_output=True, timeout=SECONDS
    )
    assert (done.returncode, done.stderr) == (0, b"")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[1]["reason"] == "truncated"
    examiner = Examiner(str(model_folder))
    wanted = examiner.record(examiner.examine(str(good)))
    for changing in (lines[0], wanted):
        # Of several exported engines this folder has one.
        del changing["seconds"], changing["engine"]
    assert lines[0] == wanted


def test_every_transfer_syntax_of_dicom(dist: Path, model_folder: Path, tmp_path: Path) -> None:
    for number, (make, _) in enumerate(SYNTAXES.values()):
        put(tmp_path / f"{number:02d}.dcm", make())
    words = [dist / "eagle-predict", "--model", model_folder, tmp_path]
    done = subprocess.run(
        [str(word) for word in words], env={}, capture_output=True, check=True, timeout=SECONDS
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    # The decoder of JPEG is under the GPL, and not in a folder that is handed on.
    wanted = ["no_decoder" if syntax in JPEG else None for syntax in SYNTAXES]
    assert [line.get("reason") for line in lines] == wanted


def test_the_window_on_a_display(
    dist: Path, model_folder: Path, tmp_path: Path, display: tuple[str, Path]
) -> None:
    image = put(tmp_path / "x.png", PLANTED["grey.png"]())
    number, shown = display
    words = [str(dist / "eagle-view"), "--model", str(model_folder), str(image)]
    window = subprocess.Popen(words, cwd=tmp_path, env={"DISPLAY": number, "HOME": str(tmp_path)})
    try:
        end = time.monotonic() + SECONDS
        while not (has(screen(shown), BANNER) and has(screen(shown), BAR)):
            assert window.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
    finally:
        window.terminate()
        window.wait()
