from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from eagle_spark.model.engines import ENGINES
from eagle_spark.training.assemble import gate_reduced_engines
from eagle_spark.training.evaluation import Evaluator

CLASSES = ("a", "b")


@pytest.mark.train
@pytest.mark.parametrize("able", [True, False])
def test_a_worker_runs_other_engines_only_if_its_cpu_supports_them(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    from eagle_spark.model.bundle import open_bundle

    stand_in = replace(ENGINES["keras"], bound=True, suits=lambda: able)
    monkeypatch.setitem(ENGINES, "keras", stand_in)
    bundle = open_bundle(str(model_folder))
    rows = {
        **{name: ["x", "y"] for name in ("path", "split", "source", "patient", "label")},
        "pixels": [bytes(bundle.metadata.input.size**2)] * 2,
        "mask": [None, None],
    }
    evaluator = Evaluator(str(model_folder), bundle.metadata.model_id, "openvino", 1, ("keras",))
    batches = evaluator([pa.RecordBatch.from_pydict(rows)])
    names = [name for batch in batches for name in batch["engine"].to_pylist()]
    assert names == ["openvino"] * 2 + ["keras"] * 2 * able


def test_lower_precision_without_results_of_every_worker_is_left_out() -> None:
    row = {"label": "a", "probabilities": [0.9, 0.1], "dice": np.nan}
    full = pd.DataFrame([row] * 10)
    results = gate_reduced_engines(
        {"openvino": full, "openvino-bf16": full[:6], "openvino-int8": full}, CLASSES
    )
    assert results.keys() == {"openvino-int8"}
    assert results["openvino-int8"].passed
    assert results["openvino-int8"].images == 10
