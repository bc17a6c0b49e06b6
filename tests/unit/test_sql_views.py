"""`make sql` creates the views whose tables exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT


@pytest.mark.parametrize(
    ("tables", "views"),
    [
        ((), []),
        (("predictions",), ["scored", "rejected"]),  # the first score was killed
        (("predictions", "runs"), ["scored", "rejected", "latest"]),
        (("images", "predictions", "runs"), ["scored", "rejected", "latest", "rejects"]),
        (("images", "rejects"), []),  # version 0.1
    ],
)
def test_views_have_their_tables(tables: tuple[str, ...], views: list[str], tmp_path: Path) -> None:
    for table in tables:
        (tmp_path / "cxr" / table).mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / "conf" / "sql" / "select_views.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("CREATE")]
    assert [words[5] for words in lines] == views
