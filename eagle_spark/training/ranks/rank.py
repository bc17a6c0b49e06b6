"""One training process: from the plan to the files in the staging folder."""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from eagle_spark.errors import EagleError
from eagle_spark.io import join, resolve
from eagle_spark.training.arrays import pack_arrays, weights_digest
from eagle_spark.training.loop import MASK_THRESHOLD as MASK_THRESHOLD
from eagle_spark.training.loop import State, Trainer
from eagle_spark.training.plan import TrainPlan
from eagle_spark.training.ranks.watchdog import HeartbeatWriter

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

PEER_TIMEOUT_SECONDS = 600.0  # a finished rank waits this long for the others
HEADS = "heads.npz"
LOGS = "tensorboard"
MAX_RECORD_BYTES = 64 * 2**20


class RankRecord(TypedDict):
    """The content of `<staging>/rank-<i>.json`.

    Attributes:
        node: name of the machine, see `node_name`.
        weights_digest: SHA-256 over all weights in order.
        peak_rss: bytes.
        temperature: of the class head.
        epochs: the figures of each epoch; None where a figure cannot be measured.
    """

    rank: int
    node: str
    weights_digest: str
    peak_rss: int
    seconds: float
    temperature: float
    epochs: Sequence[Mapping[str, float | None]]


def train_rank(plan: TrainPlan, callbacks: Sequence[keras.callbacks.Callback] = ()) -> RankRecord:
    """Train as the rank that `TF_CONFIG` names; to be called in a fresh process.

    Training continues from the checkpoint `plan.start`. The rank writes heartbeats to
    `plan.staging`, where the driver runs a `Watchdog`: without one the process ends. Rank 0 writes
    checkpoints, `<staging>/heads.npz` and the events for TensorBoard; every rank writes
    `<staging>/rank-<i>.json` and waits until those of all ranks are there.

    Args:
        callbacks: called at the beginning and end of training and of each epoch;
            `model.stop_training` ends training after the epoch. `model` is the heads.

    Returns:
        The content of `rank-<i>.json`.

    Raises:
        EagleError: when another rank does not finish.
    """
    rank = parse_rank(os.environ.get("TF_CONFIG"))
    with (
        HeartbeatWriter(plan.staging, rank, plan.stall) as heartbeat,
        tempfile.TemporaryDirectory(prefix="eagle-train-") as folder,
    ):
        logs = Path(folder, LOGS)
        if rank == 0:
            callbacks = [*callbacks, _tensorboard(logs)]
        return _train_rank(plan, rank, callbacks, heartbeat, logs)


def _tensorboard(logs: Path) -> keras.callbacks.Callback:
    import keras

    return keras.callbacks.TensorBoard(log_dir=str(logs), write_graph=False)


def _train_rank(
    plan: TrainPlan,
    rank: int,
    callbacks: Sequence[keras.callbacks.Callback],
    heartbeat: HeartbeatWriter,
    logs: Path,
) -> RankRecord:
    storage, staging = resolve(plan.staging)
    started = time.monotonic()
    strategy = _strategy(plan.threads, plan.use_gpu)
    with strategy.scope():
        trainer = Trainer(plan, rank, strategy, heartbeat)
        state = trainer.restore() if plan.start else State()
    trainer.run(callbacks, state)
    weights = trainer.weights()
    if rank == 0:
        storage.write(f"{staging}/{HEADS}", pack_arrays(weights))
        for file in logs.rglob("*.v2"):
            storage.write(f"{staging}/{LOGS}/{file.relative_to(logs)}", file.read_bytes())
    record: RankRecord = {
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


def read_records(staging: str, ranks: int) -> list[RankRecord]:
    """Return the record of every rank.

    Raises:
        EagleError: when the ranks ended with different weights.
    """
    records: list[RankRecord] = []
    for rank in range(ranks):
        storage, path = resolve(join(staging, f"rank-{rank}.json"))
        records.append(json.loads(storage.read(path, MAX_RECORD_BYTES)))
    digests = {record["weights_digest"] for record in records}
    if len(digests) != 1:
        raise EagleError(f"the ranks ended with different weights: {sorted(digests)}")
    return records


def node_name() -> str:
    """Return this machine's name; on YARN that of its NodeManager, with the port."""
    host = os.environ.get("NM_HOST", os.uname().nodename)
    return ":".join([host, os.environ["NM_PORT"]]) if "NM_PORT" in os.environ else host


def parse_rank(tf_config: str | None) -> int:
    """Return the rank of this process from the text of `TF_CONFIG`; 0 when there is none."""
    return int(json.loads(tf_config)["task"]["index"]) if tf_config else 0


def wait_for(done: Callable[[], bool], missing: str, seconds: float = PEER_TIMEOUT_SECONDS) -> None:
    """Poll until `done()`; raise EagleError with `missing` when it takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise EagleError(f"after {seconds:.0f} s {missing}")
        time.sleep(0.2)


def _strategy(threads: int, use_gpu: bool) -> tf.distribute.Strategy:
    """Return the strategy, after capping the threads: TensorFlow fixes them when it starts."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    if not use_gpu:
        tf.config.set_visible_devices([], "GPU")
    return tf.distribute.MultiWorkerMirroredStrategy()
