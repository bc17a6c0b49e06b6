from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eagle_spark.errors import EagleError
from eagle_spark.training.loop import means, rank_of, wait_for, weights_digest
from eagle_spark.training.plan import TrainPlan

MakePlan = Callable[..., TrainPlan]

PROGRAM = """
import pickle, sys
from eagle_spark.training.loop import train_rank
train_rank(pickle.loads(sys.stdin.buffer.read()))
"""


def run(work: TrainPlan) -> list[dict[str, Any]]:
    """Run every rank in a process of its own, as Spark would; return what they left."""
    staging = Path(work.staging.removeprefix("file://"))
    staging.mkdir(exist_ok=True)
    (staging / "running").touch()  # the driver's Watch
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(work.ranks)]
        for port in held:
            port.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{port.getsockname()[1]}" for port in held]
    processes = []
    for rank in range(work.ranks):
        task = {"type": "worker", "index": rank}
        environment = os.environ | {
            "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task}),
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, env=environment
        )
        assert process.stdin
        process.stdin.write(pickle.dumps(work))
        process.stdin.close()
        processes.append(process)
    try:
        assert [process.wait(timeout=240) for process in processes] == [0] * work.ranks
    finally:
        for process in processes:
            process.kill()
    return [json.loads((staging / f"rank-{i}.json").read_bytes()) for i in range(work.ranks)]


@pytest.fixture(scope="module")
def trained(
    make_plan: MakePlan, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[Path, list[dict[str, Any]]]]:
    """Ranks -> (staging folder, records), of the same training with one rank and with two."""
    found = {}
    for ranks in (1, 2):
        work = make_plan(tmp_path_factory.mktemp(f"ranks{ranks}"), ranks)
        found[ranks] = Path(work.staging.removeprefix("file://")), run(work)
    return found


@pytest.mark.train
def test_two_ranks_end_with_bitwise_equal_weights(trained: Any) -> None:
    first, second = trained[2][1]
    assert first["weights_digest"] == second["weights_digest"]
    assert [first["rank"], second["rank"]] == [0, 1]
    shared = ["loss", "accuracy", "dice", "val_loss", "val_accuracy", "val_dice"]
    for one, other in zip(first["epochs"], second["epochs"], strict=True):
        assert [one[name] for name in shared] == [other[name] for name in shared]


@pytest.mark.train
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_two_ranks_end_where_one_rank_with_the_same_batch_does(trained: Any) -> None:
    import keras

    one, two = (
        keras.models.load_model(trained[ranks][0] / "model/model.keras", compile=False)
        for ranks in (1, 2)
    )
    start = trained[1][1][0]["epochs"][0]["loss"], trained[2][1][0]["epochs"][0]["loss"]
    assert start[0] == pytest.approx(start[1], rel=1e-3)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        # Sums in another order: as far apart as a learning rate that differs by 1e-5 leads (0.7 %).
        assert np.linalg.norm(a - b) <= 2e-2 * np.linalg.norm(a)


@pytest.mark.train
def test_rank_zero_alone_leaves_the_model_and_every_rank_its_record(trained: Any) -> None:
    staging, records = trained[2]
    left = {p.relative_to(staging).as_posix() for p in staging.rglob("*") if p.is_file()}
    beats = {"running", "heartbeat-0.json", "heartbeat-1.json"}
    assert left == {"rank-0.json", "rank-1.json", "model/model.keras"} | beats
    for record in records:
        assert 0 < record["peak_rss"] < 3e9
        assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]
        last = record["epochs"][-1]
        assert last["loss"] == pytest.approx(
            last["classification_loss"] + last["segmentation_loss"]
        )
        assert last["images_per_second"] > 0
        assert last["ram"] > 0


def test_a_rank_that_waits_in_vain_says_for_what() -> None:
    with pytest.raises(EagleError, match=r"after 0 s no rank-1\.json"):
        wait_for(lambda: False, "no rank-1.json", seconds=0.0)


def test_the_rank_is_read_from_the_cluster_configuration() -> None:
    assert rank_of('{"task": {"type": "worker", "index": 3}}') == 3
    assert rank_of(None) == 0


def test_the_digest_depends_on_values_and_order() -> None:
    a, b = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert weights_digest([a, b]) == weights_digest([a.copy(), b.copy()])
    assert weights_digest([a, b]) != weights_digest([b, a])
    assert weights_digest([a, -a]) != weights_digest([a, a])  # -0.0 is not 0.0 bitwise


def test_epochs_without_masks_have_no_mask_figures() -> None:
    figures = means(np.array([4.0, 0.0, 2.0, 0.0, 3.0, 0.0]))
    assert figures == {
        "loss": 0.5,
        "classification_loss": 0.5,
        "segmentation_loss": None,
        "accuracy": 0.75,
        "dice": None,
    }


def test_a_plan_can_be_sent_to_the_ranks(make_plan: MakePlan, tmp_path: Path) -> None:
    work = make_plan(tmp_path, 2)
    assert pickle.loads(pickle.dumps(work)) == work  # noqa: S301 - our own bytes
    assert (work.ranks, work.steps) == (2, 7)
