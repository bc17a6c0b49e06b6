from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import distance

from eagle_spark.metrics.scores import (
    compute_overlap_metrics,
    confusion_matrix,
    dice,
    expected_calibration_error,
    hausdorff95,
    iou,
)


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


def test_confusion_rows_are_true_classes() -> None:
    counts = confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_iou_of_empty_masks_follows_dice_and_counts_the_overlap_once() -> None:
    empty, full = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)
    assert [iou(*pair)[0] for pair in ((empty, empty), (empty, full), (full, full))] == [1, 0, 1]
    half = np.array([[[1, 1], [0, 0]]], bool)
    assert iou(half, full)[0] == 0.5


def square(first: int, side: int, size: int = 64) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[first : first + side, first : first + side] = True
    return mask


def test_hausdorff_is_in_pixels_between_edges_and_leaves_out_the_farthest_twentieth() -> None:
    assert hausdorff95(square(20, 10), square(20, 10)) == 0
    upper, more = np.zeros((2, 64, 64), bool)
    upper[:32], more[:35] = True, True
    assert hausdorff95(upper, more) == hausdorff95(more, upper) == 3
    speck = square(20, 20)
    speck[0, 0] = True  # one pixel of 77, 28 away
    assert hausdorff95(square(20, 20), speck) == hausdorff95(speck, square(20, 20)) == 0


def test_hausdorff_agrees_with_all_pairs_of_edge_pixels() -> None:
    draw = np.random.default_rng(3)
    one, other = (ndimage.gaussian_filter(draw.random((64, 64)), 4) > 0.5 for _ in range(2))
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (one, other)]
    apart = distance.cdist(*map(np.argwhere, edges))
    wanted = max(np.percentile(apart.min(axis=axis), 95) for axis in (0, 1))
    assert hausdorff95(one, other) == pytest.approx(wanted)


def test_the_edge_of_the_image_is_an_edge_and_an_empty_mask_has_none() -> None:
    assert hausdorff95(np.ones((64, 64), bool), square(1, 62)) == 1
    assert np.isnan(hausdorff95(square(1, 3), np.zeros((64, 64), bool)))
    assert np.isnan(hausdorff95(np.zeros((64, 64), bool), square(1, 3)))


def test_one_image_has_all_overlap_metrics_or_none() -> None:
    found = compute_overlap_metrics(square(0, 2), square(0, 1))
    assert found == {"dice": 0.4, "iou": 0.25, "hausdorff95": pytest.approx(2**0.5, abs=0.1)}
    assert np.isnan(list(compute_overlap_metrics(None, square(0, 1)).values())).all()
