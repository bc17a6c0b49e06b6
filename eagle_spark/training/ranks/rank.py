"""One training process: from the plan to what it leaves in the staging folder."""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eagle_spark.errors import EagleError
from eagle_spark.io import join, locate
from eagle_spark.training.arrays import pack_arrays, weights_digest
from eagle_spark.training.loop import MASK_THRESHOLD as MASK_THRESHOLD
from eagle_spark.training.loop import State, Trainer
from eagle_spark.training.plan import TrainPlan
from eagle_spark.training.ranks.watchdog import Pulse

LEAVE_SECONDS = 600.0  # how long a rank that is done waits for the others
HEADS = "heads.npz"
LOGS = "tensorboard"


def train_rank(plan: TrainPlan, callbacks: Sequence[Any] = ()) -> dict[str, Any]:
    """Train as the rank that `TF_CONFIG` names; to be called in a fresh process.

    It goes on from the checkpoint `plan.start`, and tells its steps to `plan.staging`, where the
    driver keeps a `Watch`: without one the process ends. Rank 0 leaves checkpoints,
    `<staging>/heads.npz` and the events for TensorBoard; every rank leaves
    `<staging>/rank-<i>.json` and waits until those of all ranks are there.

    Args:
        callbacks: `keras.callbacks.Callback`s, driven at the beginning and end of training and of
            each epoch; `model.stop_training` ends training after the epoch. `model` is the heads.

    Returns:
        What stands in the JSON: `rank`, `weights_digest` (SHA-256 over all weights in order),
        `peak_rss` (bytes), `seconds`, `temperature` of the class head, and `epochs`, one
        dict of figures per epoch.

    Raises:
        EagleError: when another rank does not come to its end.
    """
    rank = rank_of(os.environ.get("TF_CONFIG"))
    with (
        Pulse(plan.staging, rank, plan.stall) as pulse,
        tempfile.TemporaryDirectory(prefix="eagle-train-") as folder,
    ):
        logs = Path(folder, LOGS)
        if rank == 0:
            callbacks = [*callbacks, _tensorboard(logs)]
        return _train_rank(plan, rank, callbacks, pulse, logs)


def _tensorboard(logs: Path) -> Any:
    import keras

    return keras.callbacks.TensorBoard(log_dir=str(logs), write_graph=False)


def _train_rank(
    plan: TrainPlan, rank: int, callbacks: Sequence[Any], pulse: Pulse, logs: Path
) -> dict[str, Any]:
    storage, staging = locate(plan.staging)
    started = time.monotonic()
    strategy = _strategy(plan.threads, plan.use_gpu)
    with strategy.scope():
        trainer = Trainer(plan, rank, strategy, pulse)
        state = trainer.restore() if plan.start else State()
    trainer.run(callbacks, state)
    weights = trainer.weights()
    if rank == 0:
        storage.write(f"{staging}/{HEADS}", pack_arrays(weights))
        for file in logs.rglob("*.v2"):
            storage.write(f"{staging}/{LOGS}/{file.relative_to(logs)}", file.read_bytes())
    record = {
        "rank": rank,
        "node": node_name(),
        "weights_digest": weights_digest(weights),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": round(time.monotonic() - started, 3),
        "temperature": state.temperature,
        "epochs": [epoch[rank] for epoch in state.history],
    }
    storage.write(f"{staging}/rank-{rank}.json", json.dumps(record, allow_nan=False).encode())
    wait_for(
        lambda: all(storage.exists(f"{staging}/rank-{i}.json") for i in range(plan.ranks)),
        f"other ranks have not ended (no rank-<i>.json in {join(plan.staging)})",
    )
    return record


def node_name() -> str:
    """Return this machine's name; on YARN that of its NodeManager, with the port."""
    host = os.environ.get("NM_HOST", os.uname().nodename)
    return ":".join([host, os.environ["NM_PORT"]]) if "NM_PORT" in os.environ else host


def rank_of(tf_config: str | None) -> int:
    """Return this process' rank from the text of `TF_CONFIG`; 0 where there is none."""
    return int(json.loads(tf_config)["task"]["index"]) if tf_config else 0


def wait_for(done: Callable[[], bool], missing: str, seconds: float = LEAVE_SECONDS) -> None:
    """Look until `done()`; raise EagleError with `missing` when it takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise EagleError(f"after {seconds:.0f} s {missing}")
        time.sleep(0.2)


def _strategy(threads: int, use_gpu: bool) -> Any:
    """Return the strategy; threads are capped first, as they are fixed once TensorFlow starts."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    if not use_gpu:
        tf.config.set_visible_devices([], "GPU")
    return tf.distribute.MultiWorkerMirroredStrategy()
