from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from eagle_spark.metrics.evaluation import (
    ALL,
    CLASS_METRICS,
    Metrics,
    iter_metric_rows,
    summarise,
)
from eagle_spark.metrics.scores import OVERLAP_METRICS

CLASSES = ("a", "b", "c")


def outcomes(rows: int, seed: int = 0, patients: int | None = None) -> pd.DataFrame:
    """Outcomes of a model that is right more often than not; two in three have a mask."""
    draw = np.random.default_rng(seed)
    numbers = draw.integers(0, 3, rows)
    logits = draw.normal(0, 1, (rows, 3)) + 1.5 * np.eye(3)[numbers]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    dice = np.where(np.arange(rows) % 3 == 0, np.nan, draw.beta(9, 1, rows))
    return pd.DataFrame(
        {
            "source": [("x", "y")[n % 2] for n in range(rows)],
            "patient": [None if patients is None else f"x/{n % patients}" for n in range(rows)],
            "label": [CLASSES[n] for n in numbers],
            "probabilities": list(np.round(probabilities, 1)),  # with ties
            "dice": dice,
            "iou": dice / (2 - dice),
            "hausdorff95": 100 * (1 - dice),
        }
    )


def test_metrics_equal_those_of_scikit_learn() -> None:
    rows = outcomes(300)
    found = summarise(rows, CLASSES)
    true = [CLASSES.index(label) for label in rows["label"]]
    scores = np.stack(rows["probabilities"].to_list())
    predicted = scores.argmax(axis=1)
    assert found.accuracy == pytest.approx(reference.accuracy_score(true, predicted))
    wanted = reference.balanced_accuracy_score(true, predicted)
    assert found.balanced_accuracy == pytest.approx(wanted)
    assert found.confusion == reference.confusion_matrix(true, predicted).tolist()
    precision, recall, f1, _ = reference.precision_recall_fscore_support(true, predicted)
    auroc = [reference.roc_auc_score(np.array(true) == n, scores[:, n]) for n in range(3)]
    for name, values in zip(CLASS_METRICS, (recall, precision, f1, auroc), strict=True):
        assert list(getattr(found, f"{name}_by_class").values()) == pytest.approx(list(values))
    assert (found.images, found.patients) == (300, 300)
    for name in OVERLAP_METRICS:
        assert found.select(name)[0] == pytest.approx(rows[name].mean())
        assert found.counted[name] == 200


def test_intervals_hold_the_figure_and_are_those_of_the_formula_for_single_images() -> None:
    found = summarise(outcomes(400), CLASSES)
    share = found.accuracy
    low, high = found.intervals.accuracy
    width = 2 * 1.96 * (share * (1 - share) / 400) ** 0.5
    assert low < share < high
    assert high - low == pytest.approx(width, rel=0.12)
    for name in CLASS_METRICS:
        for label in CLASSES:
            value, (low, high) = found.select_class(name, label)
            assert 0 <= low < value < high <= 1
    assert summarise(outcomes(400), CLASSES) == found


def test_images_of_one_patient_are_drawn_together() -> None:
    single = outcomes(60, seed=1)
    tenfold = pd.concat([single] * 10, ignore_index=True)
    known = tenfold.assign(patient=[f"x/{n % 60}" for n in range(600)])
    wanted, found, unknown = (
        summarise(rows, CLASSES).intervals.accuracy for rows in (single, known, tenfold)
    )
    assert found == pytest.approx(wanted)
    assert unknown[1] - unknown[0] < 0.5 * (found[1] - found[0])


def test_a_class_without_images_has_no_recall_and_is_left_out() -> None:
    rows = outcomes(80)
    rows = rows[rows["label"] != "c"]
    found = summarise(rows, CLASSES)
    assert found.recall_by_class["c"] is found.auroc_by_class["c"] is None
    assert found.intervals.recall_by_class["c"] is None
    assert found.precision_by_class["c"] == 0
    both = [found.recall_by_class[label] for label in "ab"]
    assert found.balanced_accuracy == pytest.approx(np.mean(both))


def test_one_patient_alone_has_no_interval() -> None:
    found = summarise(outcomes(6, patients=1), CLASSES)
    assert (found.patients, found.intervals.accuracy) == (1, None)


def test_empty_predictions_count_for_dice_and_not_for_the_distance() -> None:
    rows = outcomes(4)
    rows["dice"], rows["iou"], rows["hausdorff95"] = (
        [0.0, 1, 1, np.nan],
        0.0,
        [np.nan, 2, 4, np.nan],
    )
    found = summarise(rows, CLASSES)
    assert (found.dice, found.counted["dice"]) == (pytest.approx(2 / 3), 3)
    assert (found.hausdorff95, found.counted["hausdorff95"]) == (3, 2)
    rows[list(OVERLAP_METRICS)] = np.nan
    assert summarise(rows, CLASSES).dice is None


def test_no_outcomes_have_no_metrics_and_no_rows() -> None:
    found = summarise(outcomes(3).iloc[:0], CLASSES)
    assert (found.images, found.accuracy, found.recall_by_class) == (0, None, {})
    assert found.by_source == {}
    assert list(iter_metric_rows(found)) == []


def test_every_metric_becomes_a_row_of_its_source_and_class() -> None:
    written = json.dumps(summarise(outcomes(90), CLASSES).to_dict())
    found = Metrics.model_validate(json.loads(written))
    rows = {row[:3]: row[3:] for row in iter_metric_rows(found)}
    assert len(rows) == 3 * (6 + 4 * 3 + 9)
    assert rows[ALL, ALL, "accuracy"] == (
        *(found.accuracy, *found.intervals.accuracy),
        90,
    )
    own = found.by_source["y"]
    assert rows["y", ALL, "accuracy"][0] == own.accuracy
    assert rows["y", ALL, "dice"][3] == own.counted["dice"] == 30
    assert rows["y", "b", "recall"][3] == sum(own.confusion[1])
    assert rows["y", "b", "precision"][3] == sum(line[1] for line in own.confusion)
    assert rows["y", "b", "predicted:c"][0] == own.confusion[1][2]
    for value, low, high, n in rows.values():
        assert isinstance(value, float)
        assert n > 0
        assert low is None or low <= value <= high
