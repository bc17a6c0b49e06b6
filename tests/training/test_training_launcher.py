from __future__ import annotations

import pytest

from eagle_spark.errors import PlatformError
from eagle_spark.progress import Progress
from eagle_spark.training.frozen import Backbone
from eagle_spark.training.plan import RowGroup, SplitRows, TrainPlan, plan_rows
from eagle_spark.training.ranks.launcher import ProgressReporter, count_ranks

FRESH = {"spark.python.worker.reuse": "false"}


def yarn(executors: int, cores: int, task: int = 1) -> dict[str, str]:
    return FRESH | {
        "spark.executor.instances": str(executors),
        "spark.executor.cores": str(cores),
        "spark.task.cpus": str(task),
    }


@pytest.mark.parametrize(
    ("master", "conf", "requested", "ranks"),
    [
        ("local[4]", FRESH, None, 2),
        ("local[4]", FRESH, 4, 4),
        ("local[3, 2]", FRESH, 3, 3),
        ("local", FRESH, None, 1),
        ("local[*]", FRESH, 8, 8),
        ("local[*, 2]", FRESH | {"spark.task.cpus": "4"}, None, 2),
        ("local[4]", FRESH | {"spark.task.cpus": "2"}, 2, 2),
        ("yarn", FRESH, None, 2),
        ("yarn", yarn(3, 2), None, 3),
        ("yarn", yarn(3, 2), 6, 6),
    ],
)
def test_ranks_that_fit_are_started(
    master: str, conf: dict[str, str], requested: int | None, ranks: int
) -> None:
    assert count_ranks(master, conf, requested, 8) == ranks


@pytest.mark.parametrize(
    ("master", "conf", "requested", "named"),
    [
        ("local[*]", FRESH, 9, r"`ranks` 9: Spark has 8 task slots .*--master local\[9\]"),
        ("local[2]", FRESH, 3, r"`ranks` 3: Spark has 2 task slots .*--master local\[3\]"),
        ("local[3]", FRESH | {"spark.task.cpus": "2"}, 2, r"1 task slots.*local\[4\]"),
        ("yarn", yarn(2, 1), 3, r"spark.executor.instances=2, .*spark.executor.instances=3"),
        ("yarn", yarn(2, 3, 2), 3, "Spark has 2 task slots"),
        (
            "yarn",
            yarn(4, 1) | {"spark.dynamicAllocation.enabled": "true"},
            2,
            "spark.dynamicAllocation.enabled=false",
        ),
        ("yarn", {}, 2, "spark.python.worker.reuse=false"),
    ],
)
def test_too_many_ranks_are_refused_before_the_barrier(
    master: str, conf: dict[str, str], requested: int, named: str
) -> None:
    with pytest.raises(PlatformError, match=named):
        count_ranks(master, conf, requested, 8)


class Shown(Progress):
    """Records the lines for the terminal."""

    def __init__(self) -> None:
        super().__init__("train", 3 * 10 * 8)
        self.lines: list[str] = []

    def update(self, done: int, note: str = "") -> None:
        self.lines.append(self.line(done).split(" images")[0] + note)


def test_the_driver_shows_epoch_step_and_loss() -> None:
    rows = SplitRows(plan_rows([RowGroup("f", 0, 80)], 2, 8), ())
    plan = TrainPlan(
        training=rows,
        validation=SplitRows(plan_rows([], 2, 8), ()),
        cached=True,
        classes=("a", "b"),
        row_weights={},
        backbone=Backbone("file:///b.npz", "0", 64),
        batch=8,
        epochs=3,
        seed=1,
        staging="file:///s",
        checkpoints="file:///c",
        threads=1,
    )
    shown = Shown()
    report = ProgressReporter(shown, plan)
    for step, loss in ((0, None), (1, 1.5), (10, 0.5), (11, 0.25), (30, 0.1)):
        report({"step": step, "loss": loss})
    assert shown.lines == [
        "train: 8/240; epoch 1 of 3, step 1 of 10, loss 1.500",
        "train: 80/240; epoch 1 of 3, step 10 of 10, loss 0.500",
        "train: 88/240; epoch 2 of 3, step 1 of 10, loss 0.250",
        "train: 240/240; epoch 3 of 3, step 10 of 10, loss 0.100",
    ]
