from __future__ import annotations

import numpy as np
import pytest

from eagle_spark.model.metrics import (
    accuracy,
    confusion_matrix,
    dice,
    expected_calibration_error,
    recall_per_class,
)


def test_accuracy_is_the_share_of_equal_labels() -> None:
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75


def test_dice_of_two_empty_masks_is_one_and_of_one_empty_mask_is_zero() -> None:
    empty, full = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)
    assert dice(empty, empty).tolist() == [1.0]
    assert dice(empty, full).tolist() == [0.0]
    assert dice(full, full).tolist() == [1.0]


def test_dice_counts_the_overlap_twice_over_both_areas() -> None:
    one = np.array([[[1, 1], [0, 0]]], bool)
    other = np.array([[[1, 0], [1, 1]]], bool)
    assert dice(one, other)[0] == pytest.approx(2 * 1 / (2 + 3))


def test_calibration_error_is_zero_when_confidence_equals_accuracy() -> None:
    labels = np.array([0, 0, 0, 1])
    assert expected_calibration_error(labels, np.tile([0.75, 0.25], (4, 1))) == pytest.approx(0)


def test_calibration_error_weighs_each_bin_by_its_rows() -> None:
    probabilities = np.array([[0.9, 0.1]] * 3 + [[0.4, 0.6]])
    labels = np.array([0, 0, 1, 1])
    # Bin of 0.9: 2 of 3 right; bin of 0.6: 1 of 1 right.
    wanted = 3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * abs(1 - 0.6)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(wanted)


def test_a_confidence_of_one_falls_into_the_last_bin() -> None:
    assert expected_calibration_error(np.array([0]), np.array([[1.0, 0.0]])) == 0


def test_confusion_rows_are_true_classes_and_recall_of_an_absent_class_is_none() -> None:
    counts = confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert recall_per_class(counts) == [0.5, 1.0, None]
