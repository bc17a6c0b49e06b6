"""The notebook of the tour runs from its first cell to its last, in a session that runs already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.datasets.synthetic.sample import write_sample, write_unlabelled
from tests.helpers.sources import run_source

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "tour.ipynb"

pytestmark = [
    pytest.mark.spark,
    pytest.mark.train,  # the model of these tests is made by TensorFlow
    pytest.mark.slow("ten cells, among them a stream and a preprocess"),
]


def run_cells(parameters: str) -> list[Any]:
    """Run the code cells with other parameters; return the value of each one's last line."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {"__name__": "__main__"}
    return [run_source(source, names, str(NOTEBOOK)) for source in [parameters, *sources[1:]]]


def test_the_tour_runs(
    spark: Any, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample(tmp_path / "labelled", 30, 3)
    write_unlabelled(tmp_path / "ward", 8, 5)
    places = [str(model_folder), *(str(tmp_path / name) for name in ("ward", "labelled", "wh"))]
    values = run_cells(f"from pathlib import Path\nMODEL, IMAGES, LABELLED, WAREHOUSE = {places!r}")
    assert len(values) == 10
    label, confidence, *_ = values[2]
    assert label in "ABC"
    assert 0 < confidence <= 1
    assert values[3][0] == values[3][2] == (64, 64)
    shown = capsys.readouterr().out
    assert shown.count("rejected") >= 5  # four reasons, and one row of the stream
    assert values[7] == ({}, {})  # of too few images
    assert values[8][0] == 30
    none, some, mended = values[9]
    assert none == mended == 0 < some


def test_every_cell_has_its_output() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if "outputs" in cell]
    assert all(cell["outputs"] for cell in cells[1:])
    assert all(output["output_type"] != "error" for cell in cells for output in cell["outputs"])
