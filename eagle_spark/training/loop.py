"""One rank's training: our own loop under `MultiWorkerMirroredStrategy`, bit-equal on all ranks.

Keras' `fit` does not work under that strategy. Every rank runs the same steps and takes part in
everything that touches shared variables; rank 0 alone leaves something behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import EagleError
from eagle_spark.model.losses import dice, label_loss, mask_loss
from eagle_spark.model.network import build_network
from eagle_spark.model.weights import weights_file
from eagle_spark.storage import join, locate
from eagle_spark.training.checkpoint import load_checkpoint, save_checkpoint
from eagle_spark.training.feed import Feed
from eagle_spark.training.heartbeat import Pulse
from eagle_spark.training.monitor import Monitor
from eagle_spark.training.plan import RankRows, TrainPlan, steps_of

MASK_THRESHOLD = 0.5
WARM_UP = 0.1  # share of all steps
LEAVE_SECONDS = 600.0  # how long a rank that is done waits for the others

Totals = NDArray[np.float64]
Figures = dict[str, float | None]


def train_rank(plan: TrainPlan, callbacks: Sequence[Any] = ()) -> dict[str, Any]:
    """Train as the rank that `TF_CONFIG` names; to be called in a fresh process.

    It goes on from the checkpoint `plan.start`, and tells its steps to `plan.staging`, where the
    driver keeps a `Watch`: without one the process ends. Rank 0 leaves a checkpoint after each
    epoch and `<staging>/model/model.keras`; every rank leaves `<staging>/rank-<i>.json` and waits
    until those of all ranks are there.

    Args:
        callbacks: `keras.callbacks.Callback`s, driven at the beginning and end of training and of
            each epoch; `model.stop_training` ends training after the epoch.

    Returns:
        What stands in the JSON: `rank`, `weights_digest` (SHA-256 over all weights in order),
        `peak_rss` (bytes), `seconds`, and `epochs`, one dict of figures per epoch.

    Raises:
        EagleError: when another rank does not come to its end.
    """
    rank = rank_of(os.environ.get("TF_CONFIG"))
    with Pulse(plan.staging, rank, plan.stall) as pulse:
        return _train_rank(plan, rank, callbacks, pulse)


def _train_rank(
    plan: TrainPlan, rank: int, callbacks: Sequence[Any], pulse: Pulse
) -> dict[str, Any]:
    storage, staging = locate(plan.staging)
    started = time.monotonic()
    strategy = _strategy(plan.threads)
    with strategy.scope(), weights_file(plan.weights) as weights:
        trainer = _Trainer(plan, weights, strategy, pulse)
        history = trainer.restore() if plan.start else []
    trainer.run(rank, callbacks, history)

    with tempfile.TemporaryDirectory(prefix="eagle-train-") as folder:
        saved = Path(folder, "model.keras")  # all ranks save: it may read shared variables
        trainer.model.save(saved)
        if rank == 0:
            storage.write(f"{staging}/model/{saved.name}", saved.read_bytes())
    record = {
        "rank": rank,
        "node": node_name(),
        "weights_digest": weights_digest(trainer.model.get_weights()),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": round(time.monotonic() - started, 3),
        "epochs": [epoch[rank] for epoch in history],
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


def weights_digest(weights: Iterable[NDArray[Any]]) -> str:
    """Return the SHA-256 over the bytes of all weights in order, hexadecimal."""
    digest = hashlib.sha256()
    for array in weights:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def wait_for(done: Callable[[], bool], missing: str, seconds: float = LEAVE_SECONDS) -> None:
    """Look until `done()`; raise EagleError with `missing` when it takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise EagleError(f"after {seconds:.0f} s {missing}")
        time.sleep(0.2)


def _strategy(threads: int) -> Any:
    """Return the strategy; threads are capped first, as they are fixed once TensorFlow starts."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.set_visible_devices([], "GPU")
    return tf.distribute.MultiWorkerMirroredStrategy()


class _Trainer:
    """The network, its optimizer and its compiled steps; made within the strategy's scope."""

    def __init__(self, plan: TrainPlan, weights: Path | None, strategy: Any, pulse: Pulse) -> None:
        import keras
        import tensorflow as tf

        self.plan, self.strategy, self.pulse = plan, strategy, pulse
        self.model = build_network(plan.classes, plan.size, weights=weights, seed=plan.seed)
        self.backbone = self.model.get_layer("backbone")
        self.heads = self.model.get_layer("heads")
        steps = plan.steps * plan.epochs
        warm_up = max(1, int(steps * WARM_UP))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=max(1, steps - warm_up),
            warmup_target=plan.learning_rate,
            warmup_steps=warm_up,
        )
        self.optimizer = keras.optimizers.Adam(rate)
        self.optimizer.build(self.heads.trainable_variables)
        self._train = tf.function(lambda batch: strategy.run(self._train_step, (batch,)))
        self._check = tf.function(lambda batch: strategy.run(self._check_step, (batch,)))
        self._reduce = tf.function(lambda row: strategy.run(_sum_over_ranks, (row,)))

    def run(self, rank: int, callbacks: Sequence[Any], history: list[list[Figures]]) -> None:
        """Train the epochs that `history` lacks; add each one's figures, one entry a rank.

        They are the same on all ranks but for the load.
        """
        import keras

        plan = self.plan
        epochs = range(len(history), plan.epochs)
        training = iter(self._feed(plan.training[rank], rank, train=True).dataset(epochs))
        checking = iter(self._feed(plan.validation[rank], rank, train=False).dataset(epochs))
        checks = steps_of(plan.validation[rank])
        driven = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        self.model.stop_training = False
        driven.on_train_begin()
        for epoch in epochs:
            driven.on_epoch_begin(epoch)
            monitor = Monitor()
            figures = self._pass(self._train, training, plan.steps)
            loads = self._loads(rank, monitor.read(images=plan.steps * plan.batch))
            if checks:
                found = self._pass(self._check, checking, checks)
                figures |= {f"val_{name}": value for name, value in found.items()}
            history.append([{"epoch": epoch + 1, **figures, **load} for load in loads])
            if rank == 0:
                arrays = [self._own(variable).numpy() for variable in self._variables]
                save_checkpoint(plan.checkpoints, epoch + 1, arrays, {"history": history})
            driven.on_epoch_end(epoch, {k: v for k, v in figures.items() if v is not None})
            if self.model.stop_training:
                break
        driven.on_train_end()

    def restore(self) -> list[list[Figures]]:
        """Take the state of the checkpoint `plan.start`; return the figures of its epochs."""
        assert self.plan.start
        arrays, state = load_checkpoint(self.plan.start)
        for variable, array in zip(self._variables, arrays, strict=True):
            variable.assign(array)
        history: list[list[Figures]] = state["history"]
        return history

    @property
    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.optimizer.variables]

    def _own(self, variable: Any) -> Any:
        """Return this rank's copy of a variable, without asking the others."""
        return self.strategy.experimental_local_results(variable.value)[0]

    def _loads(self, rank: int, load: Mapping[str, float]) -> list[dict[str, float]]:
        """Return the load of every rank."""
        table = np.zeros((self.plan.ranks, len(load)))
        table[rank] = list(load.values())
        return [dict(zip(load, row, strict=True)) for row in self._reduce(table).numpy().tolist()]

    def _feed(self, lanes: RankRows, rank: int, *, train: bool) -> Feed:
        plan = self.plan
        return Feed(
            lanes=lanes,
            first_lane=rank * len(lanes),
            batch=plan.batch,
            classes=plan.classes,
            size=plan.size,
            seed=plan.seed,
            shuffle=train,
            flip=train and plan.flip,
        )

    def _pass(self, step: Any, batches: Iterator[Any], steps: int) -> Figures:
        """Run an epoch's batches and return the means over all ranks."""
        totals: Totals = np.zeros(6)
        for _ in range(steps):
            totals += step(next(batches)).numpy()
            self.pulse.step()
        return means(self._reduce(totals).numpy())

    def _train_step(self, batch: Any) -> Any:
        import tensorflow as tf

        features = self.backbone(tf.cast(batch.pixels, tf.float32), training=False)
        features = {name: tf.stop_gradient(value) for name, value in features.items()}
        with tf.GradientTape() as tape:
            outputs = self.heads(features, training=True)
            counts, sums = _weigh(batch, outputs)
            # The optimizer sums gradients over ranks: divided by the rows of the whole batch, the
            # sum is the gradient of its mean.
            over = tf.maximum(_sum_over_ranks(counts), 1.0)
            loss = tf.reduce_sum(sums / over)
        variables = self.heads.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return _figures(batch, outputs, counts, sums)

    def _check_step(self, batch: Any) -> Any:
        import tensorflow as tf

        outputs = self.model(tf.cast(batch.pixels, tf.float32), training=False)
        return _figures(batch, outputs, *_weigh(batch, outputs))


def _weigh(batch: Any, outputs: Any) -> tuple[Any, Any]:
    """Return (rows, rows with a mask) and (label loss, mask loss), summed over this rank's rows."""
    import tensorflow as tf

    masked = batch.weights * batch.has_mask
    masks = tf.cast(batch.masks, tf.float32)
    label = label_loss(batch.labels, outputs["label"]) * batch.weights
    mask = mask_loss(masks, outputs["mask"]) * masked
    counts = tf.stack([tf.reduce_sum(batch.weights), tf.reduce_sum(masked)])
    return counts, tf.stack([tf.reduce_sum(label), tf.reduce_sum(mask)])


def _figures(batch: Any, outputs: Any, counts: Any, sums: Any) -> Any:
    """Return the six sums of `means`, float64."""
    import tensorflow as tf

    best = tf.argmax(outputs["label"], axis=1, output_type=tf.int32)
    right = tf.cast(best == batch.labels, tf.float32) * batch.weights
    overlap = dice(tf.cast(batch.masks, tf.float32), outputs["mask"], MASK_THRESHOLD)
    overlap *= batch.weights * batch.has_mask
    found = tf.stack([tf.reduce_sum(right), tf.reduce_sum(overlap)])
    return tf.cast(tf.concat([counts, sums, found], axis=0), tf.float64)


def _sum_over_ranks(value: Any) -> Any:
    import tensorflow as tf

    # identity: an argument as such has no device yet, which the reduction asks for
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))


def means(totals: Totals) -> Figures:
    """Return figures per row from (rows, masks, label loss, mask loss, right, Dice), all sums.

    `segmentation_loss` and `dice` are None where no row has a mask.
    """
    rows, masks, label, mask, right, overlap = totals.tolist()
    classification = label / rows
    segmentation = mask / masks if masks else None
    return {
        "loss": classification + (segmentation or 0.0),
        "classification_loss": classification,
        "segmentation_loss": segmentation,
        "accuracy": right / rows,
        "dice": overlap / masks if masks else None,
    }
