from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from eagle_spark.model.engines import ENGINES
from eagle_spark.training.assembly import judge_reduced
from eagle_spark.training.evaluation import LEAST_SURE, NEVER_SURE, Evaluator, review_threshold

CLASSES = ("a", "b")


def outcomes(rows: Sequence[tuple[float, bool]]) -> pd.DataFrame:
    """One outcome for each (confidence, is it right); all are predicted to be `a`."""
    return pd.DataFrame(
        {
            "label": ["a" if right else "b" for _, right in rows],
            "probabilities": [[sure, 1 - sure] for sure, _ in rows],
        }
    )


def test_the_threshold_is_the_lowest_confidence_that_keeps_the_share() -> None:
    rows = [(0.99, True)] * 20 + [(0.9, True)] * 29 + [(0.8, False)] + [(0.7, False)] * 9
    assert review_threshold(outcomes(rows), CLASSES) == 0.8  # 49 of 50
    assert review_threshold(outcomes(rows), CLASSES, wanted=0.99) == 0.9


@pytest.mark.parametrize("turn", [1, -1])
def test_equally_sure_images_pass_or_fail_together(turn: int) -> None:
    sure, tied = [(0.95, True)] * 20, ([(0.9, True)] * 20 + [(0.9, False)] * 20)[::turn]
    assert review_threshold(outcomes(sure + tied), CLASSES) == 0.95
    assert review_threshold(outcomes(tied), CLASSES) == NEVER_SURE


def test_a_few_images_prove_nothing() -> None:
    few = [(0.99, True)] * (LEAST_SURE - 1)
    assert review_threshold(outcomes(few), CLASSES) == NEVER_SURE
    assert review_threshold(outcomes([*few, (0.6, False)]), CLASSES) == NEVER_SURE
    assert review_threshold(outcomes([*few, (0.6, True)]), CLASSES) == 0.6
    assert review_threshold(outcomes([]), CLASSES) == NEVER_SURE


def test_a_wrong_most_sure_image_does_not_spoil_the_rest() -> None:
    rows = [(0.99, False)] + [(0.9, True)] * 99
    assert review_threshold(outcomes(rows), CLASSES) == 0.9


@pytest.mark.train
@pytest.mark.parametrize("able", [True, False])
def test_a_worker_asks_other_engines_only_where_its_cpu_can_run_them(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    from eagle_spark.model.bundle import open_bundle

    stand_in = replace(ENGINES["keras"], bound=True, suits=lambda: able)
    monkeypatch.setitem(ENGINES, "keras", stand_in)
    bundle = open_bundle(str(model_folder))
    rows = {
        **{name: ["x", "y"] for name in ("path", "split", "source", "patient", "label")},
        "pixels": [bytes(bundle.size**2)] * 2,
        "mask": [None, None],
    }
    asked = Evaluator(str(model_folder), bundle.model_id, "openvino", 1, ("keras",))
    found = asked([pa.RecordBatch.from_pydict(rows)])
    names = [name for batch in found for name in batch["engine"].to_pylist()]
    assert names == ["openvino"] * 2 + ["keras"] * 2 * able


def test_lower_precision_that_some_worker_could_not_run_gets_no_result() -> None:
    full = outcomes([(0.9, True)] * 10).assign(dice=np.nan)
    found = judge_reduced(
        {"openvino": full, "openvino-bf16": full[:6], "openvino-int8": full}, CLASSES
    )
    assert found.keys() == {"openvino-int8"}
    assert found["openvino-int8"]["passed"]
    assert found["openvino-int8"]["images"] == 10
