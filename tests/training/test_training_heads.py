"""The class head: its training, the rows that ranks draw, and its calibration."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax

from eagle_spark.model.network import LABEL_UNITS, STATISTICS_COUNT
from eagle_spark.training.feed import Samples
from eagle_spark.training.heads import (
    BATCH_ROWS,
    AllReduce,
    LabelHead,
    LabelTrainer,
    StandardisedRows,
    compute_metrics,
    count_label_steps,
    fit_temperature,
)

pytestmark = pytest.mark.train

CLASSES = 3
SEED = 7
WAIT = 60  # seconds
Vector = NDArray[np.float64]
Work = Callable[[int, Samples, AllReduce], Any]


def draw(rows: int, seed: int = 0) -> Samples:
    """Rows of five statistics of very different scales, one of which never varies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    values = rng.normal(size=(rows, 5)) + 0.7 * np.eye(CLASSES, 5)[labels]
    values = values * [1.0, 100.0, 0.01, 3.0, 0.0] + [5.0, -300.0, 0.0, 40.0, 7.0]
    return Samples(values.astype(np.float32), labels, rng.uniform(0.2, 3.0, rows))


def copy_statistics(rows: Samples) -> Samples:
    """A copy: fitting standardises its rows in place."""
    return rows._replace(statistics=rows.statistics.copy())


def share(rows: Samples, edges: list[int]) -> list[Samples]:
    return [
        Samples(*(part[low:high] for part in rows))
        for low, high in zip([0, *edges], [*edges, len(rows.labels)], strict=True)
    ]


def together(parts: list[Samples], work: Work) -> list[Any]:
    """Run the work of every rank in a thread; their vectors are summed in the order of ranks."""
    ranks = len(parts)
    meeting, vectors = Barrier(ranks, timeout=WAIT), [np.zeros(0)] * ranks

    def run(rank: int) -> Any:
        def reduce(vector: Vector) -> Vector:
            vectors[rank] = vector.copy()
            meeting.wait()
            assert len({len(summand) for summand in vectors}) == 1, "ranks sum different vectors"
            total = np.sum(np.stack(vectors), axis=0)
            meeting.wait()
            return np.asarray(total, np.float64)

        try:
            return work(rank, parts[rank], reduce)
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))


def one_rank(vector: Vector) -> Vector:
    return vector


def start(rows: Samples) -> tuple[LabelTrainer, StandardisedRows]:
    """A trainer of a head of as many statistics as the rows have, and its rows."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(SEED)
    statistics = keras.Input((rows.statistics.shape[1],))
    units = keras.layers.Dense(
        LABEL_UNITS, "relu", kernel_initializer="he_normal", name="label_units"
    )(statistics)
    label = keras.layers.Dense(CLASSES, kernel_initializer="zeros", name="label")(units)
    heads = keras.Model(statistics, label)
    trainer = LabelTrainer(heads, count_label_steps(len(rows.labels)), tf.distribute.get_strategy())
    return trainer, StandardisedRows(copy_statistics(rows), 0, 1, one_rank, SEED)


def alone(rows: Samples) -> LabelHead:
    trainer, standardised = start(rows)
    trainer.advance(standardised, 1.0)
    return standardised.unstandardise(trainer.head())


def likely(head: LabelHead, rows: Samples) -> Vector:
    return np.asarray(np.exp(log_softmax(head.logits(rows.statistics), axis=1)))


def test_a_nonlinear_problem_is_learned() -> None:
    """Exclusive or of two statistics, beside three that mean nothing."""
    rng = np.random.default_rng(2)

    def rows(count: int) -> Samples:
        values = rng.normal(size=(count, 5)).astype(np.float32)
        labels = (values[:, 0] * values[:, 1] > 0).astype(np.int64)
        return Samples(values * [1, 50, 1, 1, 1], labels, np.ones(count))

    head, others = alone(rows(1500)), rows(1000)
    assert (head.logits(others.statistics).argmax(axis=1) == others.labels).mean() > 0.9


@pytest.mark.parametrize("edges", [[100, 250], [0, 400], [400, 400]])
def test_three_ranks_draw_what_one_rank_draws(edges: list[int]) -> None:
    """Also where some of them have no rows."""
    rows = draw(400)

    def work(rank: int, rows: Samples, reduce: AllReduce) -> Any:
        return StandardisedRows(copy_statistics(rows), rank, len(edges) + 1, reduce, SEED).draw(5)

    batches = together(share(rows, edges), work)
    whole = start(rows)[1].draw(5)
    assert sum(len(batch.labels) for batch in batches) == BATCH_ROWS
    for name in whole._fields:
        joined = np.concatenate([getattr(batch, name) for batch in batches])
        expected = getattr(whole, name)
        order, expected_order = (
            np.lexsort(np.asarray(part, np.float32).reshape(BATCH_ROWS, -1).T)
            for part in (joined, expected)
        )
        np.testing.assert_allclose(joined[order], expected[expected_order], rtol=1e-4, atol=1e-5)
        assert joined.dtype == expected.dtype


def test_a_step_without_rows_of_this_rank_is_finite() -> None:
    trainer, standardised = start(draw(40))
    standardised._first = 40  # all rows that are drawn belong to another rank
    trainer.advance(standardised, 0.02)
    assert all(np.isfinite(part).all() for part in vars(trainer.head()).values())


def test_a_row_with_more_weight_has_more_influence() -> None:
    """Two labels that no statistic explains, one of them three times as heavy."""
    labels = np.arange(3000) % 2
    values = np.random.default_rng(4).normal(size=(3000, 2)).astype(np.float32)
    rows = Samples(values, labels, np.where(labels == 1, 3.0, 1.0))
    probabilities = likely(alone(rows), rows).mean(axis=0)
    assert probabilities == pytest.approx([0.25, 0.75, 0.0], abs=0.05)


def test_only_relative_weights_matter() -> None:
    rows = draw(120)
    heavier = rows._replace(weights=rows.weights * 1024)
    np.testing.assert_allclose(likely(alone(heavier), rows), likely(alone(rows), rows), atol=1e-6)


def test_the_scale_of_a_statistic_does_not_matter() -> None:
    rows = draw(200)
    larger = rows._replace(statistics=rows.statistics * np.float32(64))
    np.testing.assert_allclose(likely(alone(larger), larger), likely(alone(rows), rows), atol=1e-3)


def test_a_constant_statistic_is_ignored() -> None:
    rows = draw(200)
    head = alone(rows)
    other = rows.statistics.copy()
    other[:, 4] += 5  # in training it was 7 throughout
    np.testing.assert_array_equal(head.logits(other), head.logits(rows.statistics))


def test_parts_of_a_training_are_the_training() -> None:
    rows = draw(300)._replace(weights=np.ones(300))
    trainer, standardised = start(rows)
    losses = []
    for part in range(1, 5):
        trainer.advance(standardised, part / 4)
        head = trainer.head()
        training = compute_metrics(head, standardised.samples, one_rank)
        same = compute_metrics(standardised.unstandardise(head), rows, one_rank)
        assert training["classification_loss"] == pytest.approx(
            same["classification_loss"], rel=1e-4
        )
        losses.append(same["classification_loss"])
    trainer.advance(standardised, 1.0)  # nothing is left to do
    for part, expected in zip(vars(trainer.head()).values(), vars(head).values(), strict=True):
        np.testing.assert_array_equal(part, expected)
    for name, expected in vars(alone(rows)).items():
        np.testing.assert_array_equal(getattr(standardised.unstandardise(head), name), expected)
    assert losses[-1] < losses[0] < np.log(CLASSES)


def test_the_head_of_the_network_is_trained() -> None:
    """`LabelTrainer` finds the layers of `build_heads`, and trains no others."""
    import tensorflow as tf

    from eagle_spark.model.network import build_heads

    rng = np.random.default_rng(6)
    labels = rng.integers(0, 2, 60)
    values = rng.normal(size=(60, STATISTICS_COUNT)).astype(np.float32) + labels[:, None]
    rows = StandardisedRows(
        Samples(values.astype(np.float32), labels, np.ones(60)), 0, 1, one_rank, SEED
    )
    heads = build_heads(("A", "B"), 32, SEED)
    before = heads.get_layer("mask_logit").get_weights()
    trainer = LabelTrainer(heads, 20, tf.distribute.get_strategy())
    trainer.advance(rows, 1.0)
    trainer.set_head(trainer.head().with_temperature(0.5))
    for array, expected in zip(heads.get_layer("mask_logit").get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, expected)
    taps = {name: np.zeros((60, *heads.input[name].shape[1:])) for name in heads.input}
    predicted = heads({**taps, "statistics": rows.samples.statistics})["label"].numpy()
    assert (predicted.argmax(axis=1) == labels).all()
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-5)


def linear(kernel: NDArray[np.float32]) -> LabelHead:
    """A head whose logits are `statistics @ kernel`: of a number, its two halves."""
    size, classes = kernel.shape
    both = np.concatenate([np.eye(size), -np.eye(size)], axis=1).astype(np.float32)
    return LabelHead(
        *(both, np.zeros(2 * size, np.float32)),
        *(np.concatenate([kernel, -kernel]), np.zeros(classes, np.float32)),
    )


def scaled(heat: float, rows: int = 4000) -> tuple[LabelHead, Samples]:
    """Return a head whose logits are `heat` times those of the labels' distribution."""
    rng = np.random.default_rng(5)
    statistics = rng.normal(size=(rows, 4)).astype(np.float32)
    kernel = rng.normal(size=(4, CLASSES)).astype(np.float32)
    chances = np.exp(log_softmax(statistics @ kernel, axis=1))
    labels = np.array([rng.choice(CLASSES, p=row / row.sum()) for row in chances.astype(float)])
    return linear(kernel * np.float32(heat)), Samples(statistics, labels, np.ones(rows))


def calibrate(head: LabelHead, parts: list[Samples]) -> list[float]:
    return together(parts, lambda _rank, rows, reduce: fit_temperature(head, rows, reduce))


@pytest.mark.parametrize("heat", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_scaling_of_the_logits(heat: float) -> None:
    head, rows = scaled(heat)
    temperatures = calibrate(head, share(rows, [1500, 1500]))
    assert len(set(temperatures)) == 1
    assert temperatures[0] == pytest.approx(heat, rel=0.08)
    assert calibrate(head, [rows])[0] == pytest.approx(temperatures[0], rel=1e-3)


def test_a_few_correct_rows_do_not_raise_confidence() -> None:
    rng = np.random.default_rng(1)
    statistics = (rng.normal(size=(20, CLASSES)) + 3 * np.eye(CLASSES)[np.arange(20) % 3]).astype(
        np.float32
    )
    head = linear(np.eye(CLASSES, dtype=np.float32))
    labels = head.logits(statistics).argmax(axis=1)
    (temperature,) = calibrate(head, [Samples(statistics, labels, np.ones(20))])
    assert 0.3 < temperature < 1.0


def test_a_temperature_divides_the_logits() -> None:
    head, rows = scaled(4.0, 50)
    expected = head.logits(rows.statistics) / 2.5
    np.testing.assert_allclose(
        head.with_temperature(2.5).logits(rows.statistics), expected, rtol=1e-4, atol=1e-5
    )


def test_without_validation_rows_nothing_is_calibrated() -> None:
    head, rows = scaled(4.0, 2)
    empty = Samples(*(part[:0] for part in rows))
    assert calibrate(head, [empty, empty]) == pytest.approx([1.0, 1.0])


def test_validation_rows_lower_the_confidence_of_an_overfitted_head() -> None:
    """Labels that no statistic explains: training ends far too sure of them."""
    rng = np.random.default_rng(3)

    def rows(count: int) -> Samples:
        values = rng.normal(size=(count, 60)).astype(np.float32)
        return Samples(values, rng.integers(0, CLASSES, count), np.ones(count))

    check = rows(600)
    head = alone(rows(60))
    temperature = fit_temperature(head, check, one_rank)

    def negative_log_density(head: LabelHead) -> float:
        log = log_softmax(head.logits(check.statistics), axis=1)
        return -float(log[np.arange(600), check.labels].mean())

    assert temperature > 2
    assert (
        negative_log_density(head.with_temperature(temperature)) < negative_log_density(head) - 0.1
    )


def test_metrics_are_unweighted_means_over_the_rows_of_all_ranks() -> None:
    head, rows = scaled(1.0, 200)
    log = log_softmax(head.logits(rows.statistics), axis=1)
    right = (log.argmax(axis=1) == rows.labels).mean()

    def work(_rank: int, rows: Samples, reduce: AllReduce) -> dict[str, float]:
        return compute_metrics(head, rows, reduce)

    heavy = rows._replace(weights=rows.weights * 9)
    for figures in together(share(heavy, [0, 70]), work):
        assert figures["accuracy"] == pytest.approx(right)
        loss = -log[np.arange(200), rows.labels].mean()
        assert figures["classification_loss"] == pytest.approx(loss, rel=1e-5)
    empty = Samples(*(part[:0] for part in rows))
    assert together([empty], work) == [{}]
