"""The class head: what it minimises, by how many ranks, and how it is calibrated."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from eagle_spark.training import label_head
from eagle_spark.training.feed import Labelled
from eagle_spark.training.label_head import LabelFit, LabelHead, Reduce

CLASSES = 3
L2 = 0.1
DONE = 500  # iterations
WAIT = 60  # seconds
Vector = NDArray[np.float64]


def draw(rows: int, seed: int = 0) -> Labelled:
    """Rows of five statistics of very different scales, one of which never varies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    values = rng.normal(size=(rows, 5)) + 0.7 * np.eye(CLASSES, 5)[labels]
    values = values * [1.0, 100.0, 0.01, 3.0, 0.0] + [5.0, -300.0, 0.0, 40.0, 7.0]
    return Labelled(values.astype(np.float32), labels, rng.uniform(0.2, 3.0, rows))


def own(rows: Labelled) -> Labelled:
    """A copy: fitting standardises its rows in place."""
    return rows._replace(statistics=rows.statistics.copy())


def share(rows: Labelled, edges: list[int]) -> list[Labelled]:
    return [
        Labelled(*(part[low:high] for part in rows))
        for low, high in zip([0, *edges], [*edges, len(rows.labels)], strict=True)
    ]


def together(parts: list[Labelled], work: Callable[[int, Labelled, Reduce], Any]) -> list[Any]:
    """Run the work of every rank in a thread; their vectors are summed in the order of ranks."""
    meeting, vectors = Barrier(len(parts), timeout=WAIT), [np.zeros(0)] * len(parts)

    def run(rank: int) -> Any:
        def reduce(vector: Vector) -> Vector:
            vectors[rank] = vector.copy()
            meeting.wait()
            assert len({len(one) for one in vectors}) == 1, "ranks asked for different sums"
            total = np.sum(np.stack(vectors), axis=0)
            meeting.wait()
            return np.asarray(total, np.float64)

        try:
            return work(rank, parts[rank], reduce)
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(run, range(len(parts))))


def fit(rank: int, rows: Labelled, reduce: Reduce, l2: float = L2) -> LabelHead:
    one = LabelFit(own(rows), CLASSES, rank, reduce)
    return one.head(one.improve(one.start(), DONE, l2))


def alone(rows: Labelled, l2: float = L2) -> LabelHead:
    (head,) = together([rows], lambda *given: fit(*given, l2=l2))
    return head


def reference(rows: Labelled, l2: float) -> Vector:
    """The logits at the minimum, in float64 and by another formula of the same loss."""
    weights = rows.weights / rows.weights.sum()
    values = rows.statistics.astype(np.float64)
    values = values - weights @ values
    values /= np.sqrt(weights @ values**2 + 1e-6)

    def loss(flat: Vector) -> tuple[float, Vector]:
        table = flat.reshape(-1, CLASSES)
        log = log_softmax(values @ table[:-1] + table[-1], axis=1)
        wrong = weights[:, None] * (np.exp(log) - np.eye(CLASSES)[rows.labels])
        slope = np.vstack([values.T @ wrong + l2 * table[:-1], wrong.sum(axis=0)])
        entropy = -(weights * log[np.arange(len(log)), rows.labels]).sum()
        return entropy + l2 / 2 * (table[:-1] ** 2).sum(), slope.ravel()

    start = np.zeros((values.shape[1] + 1) * CLASSES)
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    table = found.x.reshape(-1, CLASSES)
    return np.asarray(log_softmax(values @ table[:-1] + table[-1], axis=1))


@pytest.mark.parametrize("l2", [1.0, 0.1, 0.003])
def test_the_head_is_the_minimum_of_the_loss(l2: float) -> None:
    rows = draw(400)
    found = log_softmax(alone(rows, l2).logits(rows.statistics), axis=1)
    np.testing.assert_allclose(found, reference(rows, l2), atol=2e-3)


@pytest.mark.parametrize("edges", [[100, 250], [0, 400], [400, 400]])
def test_three_ranks_find_what_one_finds_and_all_of_them_the_same_bits(edges: list[int]) -> None:
    """Also where some of them have no rows."""
    rows = draw(400)
    heads = together(share(rows, edges), fit)
    assert len({head.kernel.tobytes() + head.bias.tobytes() for head in heads}) == 1
    wanted = alone(rows)
    spread = rows.statistics.std(axis=0)[:, None]
    np.testing.assert_allclose(heads[0].kernel * spread, wanted.kernel * spread, atol=1e-3)
    np.testing.assert_allclose(
        heads[0].logits(rows.statistics), wanted.logits(rows.statistics), atol=2e-3
    )


def test_a_row_of_double_weight_counts_as_two() -> None:
    rows = draw(120)
    whole = rows._replace(weights=np.arange(120) % 3 + 1.0)
    repeated = np.repeat(np.arange(120), np.arange(120) % 3 + 1)
    alike = Labelled(
        rows.statistics[repeated], rows.labels[repeated], np.ones(len(repeated), np.float64)
    )
    one, other = (alone(found).logits(rows.statistics) for found in (whole, alike))
    np.testing.assert_allclose(one, other, atol=2e-3)
    lighter = alone(rows._replace(weights=np.ones(120))).logits(rows.statistics)
    assert np.abs(lighter - one).max() > 0.05


def test_weights_count_among_each_other_only() -> None:
    rows = draw(120)
    heavier = rows._replace(weights=rows.weights * 1000)
    np.testing.assert_allclose(
        alone(heavier).logits(rows.statistics), alone(rows).logits(rows.statistics), atol=2e-3
    )


def test_more_l2_makes_the_head_less_sure() -> None:
    rows = draw(200)
    sizes = [
        float(np.abs(alone(rows, l2).kernel * rows.statistics.std(axis=0)[:, None]).max())
        for l2 in (0.001, 0.1, 10.0)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.1 < sizes[0]


def test_a_statistic_that_never_varies_has_no_say() -> None:
    rows = draw(200)
    head = alone(rows)
    other = rows.statistics.copy()
    other[:, 4] += 0.01  # in training it was 7 throughout
    np.testing.assert_allclose(head.logits(other), head.logits(rows.statistics), atol=1e-3)


def test_improving_goes_on_where_it_stopped() -> None:
    def some(rank: int, rows: Labelled, reduce: Reduce) -> list[float]:
        one = LabelFit(own(rows), CLASSES, rank, reduce)
        point, losses = one.start(), []
        for _ in range(4):
            point = one.improve(point, 2, 1e-9)  # so small that the loss is what falls
            losses.append(one.figures(one.head(point), rows)["classification_loss"])
            assert one.own_figures(point)["classification_loss"] == pytest.approx(losses[-1])
        return losses

    rows = draw(300)._replace(weights=np.ones(300))
    (losses,) = together([rows], some)
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < np.log(CLASSES)


def scaled(heat: float, rows: int = 4000) -> tuple[LabelHead, Labelled]:
    """A head whose logits are `heat` times those that labels were drawn by."""
    rng = np.random.default_rng(5)
    statistics = rng.normal(size=(rows, 4)).astype(np.float32)
    kernel = rng.normal(size=(4, CLASSES)).astype(np.float32)
    likely = np.exp(log_softmax(statistics @ kernel, axis=1))
    labels = np.array([rng.choice(CLASSES, p=row / row.sum()) for row in likely.astype(float)])
    head = LabelHead(kernel * np.float32(heat), np.zeros(CLASSES, np.float32))
    return head, Labelled(statistics, labels, np.ones(rows))


def calibrate(head: LabelHead) -> Callable[[int, Labelled, Reduce], float]:
    def work(rank: int, rows: Labelled, reduce: Reduce) -> float:
        return LabelFit(draw(9), CLASSES, rank, reduce).temperature(head, rows)[0]

    return work


@pytest.mark.parametrize("heat", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_scaling_of_the_logits(heat: float) -> None:
    head, rows = scaled(heat)
    found = together(share(rows, [1500, 1500]), calibrate(head))
    assert len(set(found)) == 1
    assert found[0] == pytest.approx(heat, rel=0.08)
    (single,) = together([rows], calibrate(head))
    assert found[0] == pytest.approx(single, rel=1e-4)


def test_a_few_rows_that_are_all_right_prove_no_certainty() -> None:
    rng = np.random.default_rng(1)
    statistics = (rng.normal(size=(20, CLASSES)) + 3 * np.eye(CLASSES)[np.arange(20) % 3]).astype(
        np.float32
    )
    head = LabelHead(np.eye(CLASSES, dtype=np.float32), np.zeros(CLASSES, np.float32))
    labels = head.logits(statistics).argmax(axis=1)
    (found,) = together([Labelled(statistics, labels, np.ones(20))], calibrate(head))
    assert 0.3 < found < 1.0


def test_the_cooled_head_gives_the_logits_divided() -> None:
    head, rows = scaled(4.0, 50)
    wanted = head.logits(rows.statistics) / 2.5
    np.testing.assert_allclose(
        head.cooled(2.5).logits(rows.statistics), wanted, rtol=1e-4, atol=1e-5
    )


def finish(validation: list[Labelled]) -> Callable[[int, Labelled, Reduce], Any]:
    def work(rank: int, rows: Labelled, reduce: Reduce) -> Any:
        one = LabelFit(own(rows), CLASSES, rank, reduce)
        point, temperature, l2 = one.finish(one.start(), DONE, validation[rank])
        return one.head(point), temperature, l2

    return work


def test_without_validation_rows_nothing_is_calibrated_or_chosen() -> None:
    rows = draw(200)
    nobody = Labelled(*(part[:0] for part in rows))
    for _, temperature, l2 in together(share(rows, [100]), finish([nobody, nobody])):
        assert (temperature, l2) == (1.0, label_head.L2[2])


def test_validation_rows_choose_the_l2_that_surprises_them_least() -> None:
    """Few rows of many useless statistics want to be held back; many rows do not."""
    rng = np.random.default_rng(3)

    def rows(count: int) -> Labelled:
        labels = rng.integers(0, CLASSES, count)
        values = rng.normal(size=(count, 60)) + 0.8 * np.eye(CLASSES, 60)[labels]
        return Labelled(values.astype(np.float32), labels, np.ones(count))

    check = rows(2000)
    found = {}
    for count in (60, 6000):
        some = rows(count)
        parts = together(share(some, [count // 3]), finish(share(check, [2000])))
        assert len({(temperature, l2) for _, temperature, l2 in parts}) == 1
        head, temperature, found[count] = parts[0]

        def surprise(head: LabelHead) -> float:
            log = log_softmax(head.logits(check.statistics), axis=1)
            return -float(log[np.arange(2000), check.labels].sum())

        others = [alone(some, l2) for l2 in label_head.L2]
        assert surprise(head.cooled(temperature)) <= min(map(surprise, others)) + 0.5
    assert found[60] >= found[6000]


def test_figures_are_means_over_the_rows_of_all_ranks_whatever_their_weight() -> None:
    head, rows = scaled(1.0, 200)
    log = log_softmax(rows.statistics @ head.kernel, axis=1)
    right = (log.argmax(axis=1) == rows.labels).mean()

    def work(rank: int, some: Labelled, reduce: Reduce) -> dict[str, float]:
        return LabelFit(draw(9), CLASSES, rank, reduce).figures(head, some)

    heavy = rows._replace(weights=rows.weights * 9)
    for figures in together(share(heavy, [0, 70]), work):
        assert figures["accuracy"] == pytest.approx(right)
        loss = -log[np.arange(200), rows.labels].mean()
        assert figures["classification_loss"] == pytest.approx(loss, rel=1e-5)
    nobody = Labelled(*(part[:0] for part in rows))
    assert together([nobody], work) == [{}]
