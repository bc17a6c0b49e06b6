"""One rank's epochs: our own loop under `MultiWorkerMirroredStrategy`, bit-equal on all ranks.

Keras' `fit` does not work under that strategy. Every rank runs the same steps and takes part in
everything that touches shared variables; rank 0 alone leaves checkpoints behind. In each epoch the
class head does its share of its steps, and the mask head sees every row once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.losses import dice, mask_loss
from eagle_spark.model.network import TAPS, build_heads
from eagle_spark.training.checkpoint import load_checkpoint, save_checkpoint
from eagle_spark.training.features import load_backbone
from eagle_spark.training.feed import Feed, read_labelled
from eagle_spark.training.heads import LabelFit, LabelHead
from eagle_spark.training.monitor import Monitor
from eagle_spark.training.pair_norm import pair_normalisation
from eagle_spark.training.plan import SplitRows, TrainPlan, steps_of
from eagle_spark.training.ranks.watchdog import Pulse

MASK_THRESHOLD = 0.5
WARM_UP = 0.1  # share of all steps

Totals = NDArray[np.float64]
Figures = dict[str, float | None]


@dataclass
class State:
    """How far a training is, beside the weights; the same on all ranks.

    Attributes:
        step: steps done of the epoch that is not finished.
        totals: sums over all ranks and those steps, see `mask_figures`. The class head has done its
            own steps of that epoch when there is such a step.
        history: figures of each finished epoch, one entry a rank.
        temperature: of the class head, once the last epoch has begun.
    """

    step: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[list[Figures]] = field(default_factory=list)
    temperature: float = 1.0

    @property
    def epoch(self) -> int:
        return len(self.history)


class Trainer:
    """The heads, the mask head's optimizer and compiled steps; made within the strategy's scope."""

    def __init__(self, plan: TrainPlan, rank: int, strategy: Any, pulse: Pulse) -> None:
        import keras
        import tensorflow as tf

        self.plan, self.rank, self.strategy, self.pulse = plan, rank, strategy, pulse
        self.engine = None if plan.cached else load_backbone(plan.backbone, plan.threads)
        self.heads = build_heads(plan.classes, plan.size, plan.seed, pair_normalisation)
        for layer in self._label_layers:  # they are fitted apart, see `LabelFit`
            layer.trainable = False
        taps = {name: self.heads.input[name] for name in TAPS}
        self.decoder = keras.Model(taps, self.heads.output["mask"])
        steps = plan.steps * plan.epochs
        warm_up = max(1, int(steps * WARM_UP))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=max(1, steps - warm_up),
            warmup_target=plan.learning_rate,
            warmup_steps=warm_up,
        )
        self.optimizer = keras.optimizers.Adam(rate)
        self.optimizer.build(self.decoder.trainable_variables)
        self.heads.compile(optimizer=self.optimizer)  # where callbacks look for it
        self._train = tf.function(lambda batch: strategy.run(self._train_step, (batch,)))
        self._check = tf.function(lambda batch: strategy.run(self._check_step, (batch,)))
        self._reduce = tf.function(
            lambda row: strategy.run(_sum_over_ranks, (row,)), reduce_retracing=True
        )
        self.point: Totals = np.zeros(0)

    def run(self, callbacks: Sequence[Any], state: State) -> None:
        """Train what `state` lacks, and bring it up to date.

        Figures are the same on all ranks but for the load.
        """
        import keras

        plan, driven = self.plan, keras.callbacks.CallbackList(list(callbacks), model=self.heads)
        self.heads.stop_training = False
        driven.on_train_begin()
        for number, past in enumerate(state.history):
            driven.on_epoch_begin(number)
            driven.on_epoch_end(number, _numbers(past[0]))
        fit = LabelFit(
            *(self._labelled(plan.training), len(plan.classes), self.rank, plan.ranks, self.sum),
            plan.seed,
        )
        check = self._labelled(plan.validation, copies=1)
        self.point = self.point if self.point.size else fit.start()
        epochs, first = range(state.epoch, plan.epochs), state.step
        training = iter(self._feed(plan.training, train=True).dataset(first, epochs))
        checking = iter(self._feed(plan.validation, train=False).dataset(0, epochs))
        checks = steps_of(plan.validation.masks[self.rank])
        for epoch in epochs:
            driven.on_epoch_begin(epoch)
            monitor, done = Monitor(), state.step
            if not done and epoch < plan.epochs - 1:
                self.point = fit.improve(self.point, (epoch + 1) / plan.epochs)
            elif not done:
                self.point, state.temperature = fit.finish(self.point, check)
            head = fit.head(self.point)
            self._take(head)
            figures = mask_figures(self._pass(training, state)) | fit.own_figures(self.point)
            loads = self._loads(monitor.read(images=(plan.steps - done) * plan.batch))
            found: Figures = {**fit.figures(head, check)}
            if checks:
                found |= mask_figures(self._checks(checking, checks))
            figures = _with_loss(figures)
            if found:
                figures |= {f"val_{name}": value for name, value in _with_loss(found).items()}
            state.history.append([{"epoch": epoch + 1, **figures, **load} for load in loads])
            state.step, state.totals = 0, State().totals
            self.save(state)
            driven.on_epoch_end(epoch, _numbers(figures))
            if self.heads.stop_training:
                break
        driven.on_train_end()
        self._take(fit.head(self.point).cooled(state.temperature))

    def save(self, state: State) -> None:
        """Leave a checkpoint, if this is rank 0."""
        if self.rank == 0:
            arrays = [self.point, *(self._own(variable).numpy() for variable in self._variables)]
            done = state.epoch * self.plan.steps + state.step
            save_checkpoint(self.plan.checkpoints, done, arrays, vars(state))

    def restore(self) -> State:
        """Take the state of the checkpoint `plan.start`."""
        assert self.plan.start
        (self.point, *arrays), state = load_checkpoint(self.plan.start)
        for variable, array in zip(self._variables, arrays, strict=True):
            variable.assign(array)
        return State(**state)

    def weights(self) -> list[NDArray[Any]]:
        """Return the weights of the heads, in Keras' order."""
        return [np.asarray(array) for array in self.heads.get_weights()]

    def sum(self, vector: Totals) -> Totals:
        """Return the sum of every rank's vector."""
        self.pulse.step()
        return np.asarray(self._reduce(np.asarray(vector, np.float64)).numpy())

    def _take(self, head: LabelHead) -> None:
        parts = [[head.kernel, head.bias], [head.top_kernel, head.top_bias]]
        for layer, weights in zip(self._label_layers, parts, strict=True):
            layer.set_weights(weights)

    @property
    def _label_layers(self) -> list[Any]:
        return [self.heads.get_layer(name) for name in ("label_units", "label")]

    @property
    def _variables(self) -> list[Any]:
        return [*self.heads.variables, *self.optimizer.variables]

    def _own(self, variable: Any) -> Any:
        """Return this rank's copy of a variable, without asking the others."""
        return self.strategy.experimental_local_results(variable.value)[0]

    def _loads(self, load: Mapping[str, float]) -> list[Figures]:
        """Return the load of every rank; what cannot be measured is None."""
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

    def _labelled(self, split: SplitRows, copies: int = 2) -> Any:
        plan = self.plan
        return read_labelled(
            *(split.labels[self.rank], plan.classes, plan.row_weights, self.engine, plan.size),
            copies,
            self.pulse.step,
        )

    def _feed(self, split: SplitRows, *, train: bool) -> Feed:
        plan, lanes = self.plan, split.masks[self.rank]
        return Feed(
            lanes=lanes,
            first_lane=self.rank * len(lanes),
            batch=plan.batch,
            size=plan.size,
            seed=plan.seed,
            shuffle=train,
            engine=self.engine,
            flip=train and not plan.cached,
        )

    def _pass(self, batches: Iterator[Any], state: State) -> Totals:
        """Run the rest of an epoch's steps, with checkpoints; return the sums over all ranks."""
        totals: Totals = np.zeros(3)
        plan = self.plan
        for step in range(state.step + 1, plan.steps + 1):
            totals += self._train(next(batches)).numpy()
            self.pulse.step(plan.steps * state.epoch + step, totals[1] / max(totals[0], 1.0))
            if step % plan.checkpoint_steps == 0 or step == plan.steps:
                state.totals = (np.array(state.totals) + self.sum(totals)).tolist()
                self._agree()
                state.step, totals = step, np.zeros(3)
                if step < plan.steps:
                    self.save(state)
        return np.array(state.totals)

    def _agree(self) -> None:
        """Give all ranks the mean of their moving statistics: what those of all rows would be."""
        own = self.decoder.non_trainable_variables
        flat = np.concatenate([self._own(variable).numpy().ravel() for variable in own])
        mean = (self.sum(flat.astype(np.float64)) / self.plan.ranks).astype(np.float32)
        edges = np.cumsum([math.prod(variable.shape) for variable in own])[:-1]
        for variable, value in zip(own, np.split(mean, edges), strict=True):
            variable.assign(value.reshape(variable.shape))

    def _checks(self, batches: Iterator[Any], steps: int) -> Totals:
        totals: Totals = np.zeros(3)
        for _ in range(steps):
            totals += self._check(next(batches)).numpy()
            self.pulse.step()
        return self.sum(totals)

    def _train_step(self, batch: Any) -> Any:
        import tensorflow as tf

        taps, masks = _floats(batch)
        with tf.GradientTape() as tape:
            found = self.decoder(taps, training=True)
            rows = tf.reduce_sum(batch.weights)
            loss = tf.reduce_sum(mask_loss(masks, found) * batch.weights)
            # The optimizer sums gradients over ranks: divided by the rows of the whole batch, the
            # sum is the gradient of its mean.
            share = loss / tf.maximum(_sum_over_ranks(rows), 1.0)
        variables = self.decoder.trainable_variables
        self.optimizer.apply(tape.gradient(share, variables), variables)
        return _sums(batch.weights, masks, found, loss)

    def _check_step(self, batch: Any) -> Any:
        import tensorflow as tf

        taps, masks = _floats(batch)
        found = self.decoder(taps, training=False)
        loss = tf.reduce_sum(mask_loss(masks, found) * batch.weights)
        return _sums(batch.weights, masks, found, loss)


def _floats(batch: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    taps = {name: tf.cast(value, tf.float32) for name, value in batch.taps.items()}
    return taps, tf.cast(batch.masks, tf.float32)


def _sums(weights: Any, masks: Any, found: Any, loss: Any) -> Any:
    """Return the three sums of `mask_figures`, float64."""
    import tensorflow as tf

    overlap = tf.reduce_sum(dice(masks, found, MASK_THRESHOLD) * weights)
    return tf.cast(tf.stack([tf.reduce_sum(weights), loss, overlap]), tf.float64)


def _sum_over_ranks(value: Any) -> Any:
    import tensorflow as tf

    # identity: an argument as such has no device yet, which the reduction asks for
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))


def mask_figures(totals: Totals) -> Figures:
    """Return the means over rows from (rows with a mask, loss, Dice), all sums; None of no rows."""
    rows, loss, overlap = totals.tolist()
    return {
        "segmentation_loss": loss / rows if rows else None,
        "dice": overlap / rows if rows else None,
    }


def _with_loss(figures: Figures) -> Figures:
    """Add `loss`, the sum of both heads' losses."""
    both = (figures.get("classification_loss"), figures.get("segmentation_loss"))
    return {"loss": sum(value for value in both if value is not None), **figures}


def _numbers(figures: Figures) -> dict[str, float]:
    return {name: value for name, value in figures.items() if value is not None}
