"""The epochs of one rank: a loop under `MultiWorkerMirroredStrategy`, bit-equal on all ranks.

Keras' `fit` does not work under that strategy. Every rank runs the same steps and takes part in
every operation on shared variables; rank 0 alone writes checkpoints. In each epoch the class head
runs its share of its steps, and the mask head reads every row once. They share no weight, so each
has its own optimizer and its own batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.losses import dice, mask_loss
from eagle_spark.model.network import TAPS, build_heads
from eagle_spark.training.checkpoint import load_checkpoint, save_checkpoint
from eagle_spark.training.features import load_backbone
from eagle_spark.training.feed import Batch, BatchGenerator, Samples, read_samples
from eagle_spark.training.heads import (
    LabelTrainer,
    StandardisedRows,
    build_schedule,
    compute_metrics,
    count_label_steps,
    fit_temperature,
)
from eagle_spark.training.monitor import ResourceMonitor
from eagle_spark.training.pair_norm import pair_normalisation
from eagle_spark.training.plan import COPIES, SplitRows, TrainPlan, count_steps
from eagle_spark.training.ranks.watchdog import HeartbeatWriter

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

MASK_THRESHOLD = 0.5

Vector = NDArray[np.float64]
Metrics = dict[str, float | None]


@dataclass
class State:
    """The progress of a training without its weights; the same on all ranks.

    Attributes:
        step: steps of the mask head done of the unfinished epoch. From the first one on, the class
            head has done its own steps of that epoch.
        totals: sums over all ranks and those steps, see `mask_metrics`.
        history: metrics of each finished epoch, one entry per rank.
        temperature: of the class head, once the last epoch has begun.
    """

    step: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[list[Metrics]] = field(default_factory=list)
    temperature: float = 1.0

    @property
    def epoch(self) -> int:
        return len(self.history)


class Trainer:
    """The heads, and the optimizer and compiled steps of each.

    To be constructed within the strategy's scope.
    """

    def __init__(
        self,
        plan: TrainPlan,
        rank: int,
        strategy: tf.distribute.Strategy,
        heartbeat: HeartbeatWriter,
    ) -> None:
        import keras
        import tensorflow as tf

        self.plan, self.rank, self.strategy, self.heartbeat = plan, rank, strategy, heartbeat
        self.engine = None if plan.cached else load_backbone(plan.backbone, plan.threads)
        self.heads = build_heads(plan.classes, plan.size, plan.seed, pair_normalisation)
        self.label = LabelTrainer(self.heads, count_label_steps(plan.label_rows), strategy)
        taps = {name: self.heads.input[name] for name in TAPS}
        self.decoder = keras.Model(taps, self.heads.output["mask"])
        schedule = build_schedule(plan.steps * plan.epochs, plan.learning_rate)
        self.optimizer = keras.optimizers.Adam(schedule)
        self.optimizer.build(self.decoder.trainable_variables)
        self.heads.compile(optimizer=self.optimizer)  # callbacks read it from there
        self._train = tf.function(lambda batch: strategy.run(self._train_step, (batch,)))
        self._validate = tf.function(lambda batch: strategy.run(self._validation_step, (batch,)))
        self._reduce = tf.function(
            lambda row: strategy.run(_sum_over_ranks, (row,)), reduce_retracing=True
        )

    def run(self, callbacks: Sequence[keras.callbacks.Callback], state: State) -> None:
        """Train the remaining epochs, and update `state`.

        Metrics are the same on all ranks, except for the load.
        """
        import keras

        plan = self.plan
        callback_list = keras.callbacks.CallbackList(list(callbacks), model=self.heads)
        self.heads.stop_training = False
        callback_list.on_train_begin()
        for number, past in enumerate(state.history):
            callback_list.on_epoch_begin(number)
            callback_list.on_epoch_end(number, _without_none(past[0]))
        training_samples = self._read_samples(plan.training)
        rows = StandardisedRows(training_samples, self.rank, plan.ranks, self.sum, plan.seed)
        samples = self._read_samples(plan.validation, copies=1)
        epochs, first = range(state.epoch, plan.epochs), state.step
        training = iter(self._generator(plan.training, train=True).dataset(first, epochs))
        validation = iter(self._generator(plan.validation, train=False).dataset(0, epochs))
        validation_steps = count_steps(plan.validation.masks[self.rank])
        for epoch in epochs:
            callback_list.on_epoch_begin(epoch)
            monitor, done = ResourceMonitor(), state.step
            self.label.advance(rows, (epoch + 1) / plan.epochs, self.heartbeat.step)
            standardised = self.label.head()
            head = rows.unstandardise(standardised)
            if epoch == plan.epochs - 1:
                state.temperature = fit_temperature(head, samples, self.sum)
            totals = self._train_epoch(training, state)
            metrics = mask_metrics(totals)
            metrics |= compute_metrics(standardised, rows.samples, self.sum)
            loads = self._gather_loads(monitor.read(images=(plan.steps - done) * plan.batch))
            validation_metrics: Metrics = {**compute_metrics(head, samples, self.sum)}
            if validation_steps:
                totals = self._validate_epoch(validation, validation_steps)
                validation_metrics |= mask_metrics(totals)
            metrics = _with_loss(metrics)
            if validation_metrics:
                validation_metrics = _with_loss(validation_metrics)
                metrics |= {f"val_{name}": value for name, value in validation_metrics.items()}
            state.history.append([{"epoch": epoch + 1, **metrics, **load} for load in loads])
            state.step, state.totals = 0, State().totals
            self.save(state)
            callback_list.on_epoch_end(epoch, _without_none(metrics))
            if self.heads.stop_training:
                break
        callback_list.on_train_end()
        head = rows.unstandardise(self.label.head())
        self.label.set_head(head.with_temperature(state.temperature))

    def save(self, state: State) -> None:
        """Write a checkpoint, if this is rank 0."""
        if self.rank == 0:
            arrays = [self._local_value(variable).numpy() for variable in self._variables]
            done = state.epoch * self.plan.steps + state.step
            save_checkpoint(self.plan.checkpoints, done, arrays, vars(state))

    def restore(self) -> State:
        """Restore the checkpoint `plan.start`, and return its state."""
        assert self.plan.start
        arrays, state = load_checkpoint(self.plan.start)
        for variable, array in zip(self._variables, arrays, strict=True):
            variable.assign(array)
        return State(**state)

    def weights(self) -> list[NDArray[np.generic]]:
        """Return the weights of the heads, in Keras' order."""
        return [np.asarray(array) for array in self.heads.get_weights()]

    def sum(self, vector: Vector) -> Vector:
        """Return the sum of every rank's vector."""
        self.heartbeat.step()
        return np.asarray(self._reduce(np.asarray(vector, np.float64)).numpy())

    @property
    def _variables(self) -> list[keras.Variable]:
        return [
            *self.heads.variables,
            *self.optimizer.variables,
            *self.label.optimizer.variables,
        ]

    def _local_value(self, variable: keras.Variable) -> tf.Tensor:
        """Return this rank's copy of a variable, without communication."""
        return self.strategy.experimental_local_results(variable.value)[0]

    def _gather_loads(self, load: Mapping[str, float]) -> list[Metrics]:
        """Return the load of every rank; quantities that cannot be measured are None."""
        table = np.zeros((self.plan.ranks, len(load)))
        table[self.rank] = list(load.values())
        rows = self.sum(table).tolist()
        return [
            {
                name: None if np.isnan(value) else value
                for name, value in zip(load, row, strict=True)
            }
            for row in rows
        ]

    def _read_samples(self, split: SplitRows, copies: int = COPIES) -> Samples:
        plan = self.plan
        return read_samples(
            *(split.labels[self.rank], plan.classes, plan.row_weights, self.engine, plan.size),
            copies,
            self.heartbeat.step,
        )

    def _generator(self, split: SplitRows, *, train: bool) -> BatchGenerator:
        plan, lanes = self.plan, split.masks[self.rank]
        return BatchGenerator(
            lanes=lanes,
            first_lane=self.rank * len(lanes),
            batch=plan.batch,
            size=plan.size,
            seed=plan.seed,
            shuffle=train,
            engine=self.engine,
            flip=train and not plan.cached,
        )

    def _train_epoch(self, batches: Iterator[Batch], state: State) -> Vector:
        """Run an epoch's remaining steps, with checkpoints; return the totals of all ranks."""
        totals: Vector = np.zeros(3)
        plan = self.plan
        for step in range(state.step + 1, plan.steps + 1):
            totals += self._train(next(batches)).numpy()
            self.heartbeat.step(plan.steps * state.epoch + step, totals[1] / max(totals[0], 1.0))
            if step % plan.checkpoint_steps == 0 or step == plan.steps:
                state.totals = (np.array(state.totals) + self.sum(totals)).tolist()
                self._average_moving_statistics()
                state.step, totals = step, np.zeros(3)
                if step < plan.steps:
                    self.save(state)
        return np.array(state.totals)

    def _average_moving_statistics(self) -> None:
        """Set the moving statistics of all ranks to their mean, which is that of all rows."""
        variables = self.decoder.non_trainable_variables
        flat = np.concatenate([self._local_value(item).numpy().ravel() for item in variables])
        mean = (self.sum(flat.astype(np.float64)) / self.plan.ranks).astype(np.float32)
        edges = np.cumsum([math.prod(variable.shape) for variable in variables])[:-1]
        for variable, value in zip(variables, np.split(mean, edges), strict=True):
            variable.assign(value.reshape(variable.shape))

    def _validate_epoch(self, batches: Iterator[Batch], steps: int) -> Vector:
        """Run all validation steps; return the totals of all ranks."""
        totals: Vector = np.zeros(3)
        for _ in range(steps):
            totals += self._validate(next(batches)).numpy()
            self.heartbeat.step()
        return self.sum(totals)

    def _train_step(self, batch: Batch) -> tf.Tensor:
        import tensorflow as tf

        taps, masks = _to_float32(batch)
        with tf.GradientTape() as tape:
            predicted = self.decoder(taps, training=True)
            rows = tf.reduce_sum(batch.weights)
            loss = tf.reduce_sum(mask_loss(masks, predicted) * batch.weights)
            # The optimizer sums gradients over ranks: divided by the rows of the whole batch, the
            # sum is the gradient of its mean.
            share = loss / tf.maximum(_sum_over_ranks(rows), 1.0)
        variables = self.decoder.trainable_variables
        self.optimizer.apply(tape.gradient(share, variables), variables)
        return _step_totals(batch.weights, masks, predicted, loss)

    def _validation_step(self, batch: Batch) -> tf.Tensor:
        import tensorflow as tf

        taps, masks = _to_float32(batch)
        predicted = self.decoder(taps, training=False)
        loss = tf.reduce_sum(mask_loss(masks, predicted) * batch.weights)
        return _step_totals(batch.weights, masks, predicted, loss)


def _to_float32(batch: Batch) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    import tensorflow as tf

    taps = {name: tf.cast(value, tf.float32) for name, value in batch.taps.items()}
    return taps, tf.cast(batch.masks, tf.float32)


def _step_totals(
    weights: tf.Tensor, masks: tf.Tensor, predicted: tf.Tensor, loss: tf.Tensor
) -> tf.Tensor:
    """Return the three totals of `mask_metrics`, float64."""
    import tensorflow as tf

    overlap = tf.reduce_sum(dice(masks, predicted, MASK_THRESHOLD) * weights)
    return tf.cast(tf.stack([tf.reduce_sum(weights), loss, overlap]), tf.float64)


def _sum_over_ranks(value: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    # identity: an argument itself has no device yet, and the reduction needs one
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))


def mask_metrics(totals: Vector) -> Metrics:
    """Return the mean loss and Dice over rows with a mask; None without rows.

    Args:
        totals: number of rows with a mask, sum of their losses, sum of their Dice.
    """
    rows, loss, overlap = totals.tolist()
    return {
        "segmentation_loss": loss / rows if rows else None,
        "dice": overlap / rows if rows else None,
    }


def _with_loss(metrics: Metrics) -> Metrics:
    """Add `loss`, the sum of both heads' losses."""
    losses = (metrics.get("classification_loss"), metrics.get("segmentation_loss"))
    return {"loss": sum(value for value in losses if value is not None), **metrics}


def _without_none(metrics: Metrics) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}
