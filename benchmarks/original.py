"""The recipe of the student project "Eagle Dev", reconstructed.

    python -m benchmarks.original --warehouse URI --weights PATH [--epochs N]

A frozen MobileNetV2 that computes every image in every epoch, in colour, in batches of 8; pixels
scaled to 0..1, although its ImageNet weights expect -1..1; a decoder of transposed convolutions
on the last 7x7 features; a class head of global average, Dense(128) and softmax; Adam 1e-3. All
masked images of the train split of the table `images` are in memory before the first epoch. Each
epoch is timed, after one step that compiles. The program of the project itself took 363 s for 10
epochs on 1,221 images and 2 cores, with accuracy 0.894 and Dice 0.869 on other patients.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from eagle_spark.imaging.mask import decode_mask
from eagle_spark.io import absolute_uri, resolve

BATCH = 8
LEARNING_RATE = 1e-3
EPOCHS = 10  # of the original
DECODER_WIDTHS = (256, 128, 64, 32, 16)
THRESHOLD = 0.5


def list_image_files(warehouse: str) -> dict[str, list[str]]:
    """Return the Parquet files of the newest snapshot of `images`, by split."""
    from eagle_spark.spark.session import open_session
    from eagle_spark.tables import IMAGES, Warehouse

    files: dict[str, list[str]] = {}
    with open_session("bench", warehouse) as spark:
        tables = Warehouse(spark)
        snapshot = tables.snapshot(IMAGES)
        assert snapshot is not None
        for file in tables.files(IMAGES, snapshot):
            files.setdefault(file.partition["split"], []).append(file.uri)
    return files


def read_split(files: Sequence[str], classes: list[str]) -> tuple[Any, Any, Any]:
    """Return uint8 images `(n, s, s)`, class numbers `(n,)` and bool masks of the masked rows."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for uri in files:
        storage, path = resolve(uri)
        with storage.open(path) as stream:
            table = pq.ParquetFile(stream).read(["pixels", "mask", "label"])
            rows += [row for row in table.to_pylist() if row["mask"] is not None]
    side = round(len(rows[0]["pixels"]) ** 0.5)
    pixels = np.frombuffer(b"".join(row["pixels"] for row in rows), np.uint8)
    labels = np.array([classes.index(row["label"]) for row in rows])
    return pixels.reshape(-1, side, side), labels, np.stack([decode_mask(r["mask"]) for r in rows])


def build_network(classes: int, side: int, weights: str | None) -> Any:
    import keras

    layers = keras.layers
    base = keras.applications.MobileNetV2(
        input_shape=(side, side, 3), include_top=False, weights=weights
    )
    base.trainable = False
    label = layers.GlobalAveragePooling2D()(base.output)
    label = layers.Dense(128, activation="relu")(label)
    label = layers.Dense(classes, activation="softmax", name="label")(label)
    mask = base.output
    for width in DECODER_WIDTHS:
        mask = layers.Conv2DTranspose(width, 3, 2, padding="same", activation="relu")(mask)
    mask = layers.Conv2D(1, 1, activation="sigmoid", name="mask")(mask)
    model = keras.Model(base.input, {"label": label, "mask": mask})
    losses = {"label": "sparse_categorical_crossentropy", "mask": "binary_crossentropy"}
    model.compile(keras.optimizers.Adam(LEARNING_RATE), losses)
    return model


def make_batches(images: Any, labels: Any, masks: Any, *, shuffle: bool) -> Any:
    """Return a Keras data set that scales the pixels and repeats the channel in each batch."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.order, self.generator = np.arange(len(images)), np.random.default_rng(7)
            self.on_epoch_end()

        def __len__(self) -> int:
            return -(-len(images) // BATCH)

        def __getitem__(self, index: int) -> Any:
            rows = self.order[index * BATCH : (index + 1) * BATCH]
            pixels = np.repeat(images[rows, ..., None].astype(np.float32) / 255.0, 3, axis=-1)
            targets = {"label": labels[rows], "mask": masks[rows, ..., None].astype(np.float32)}
            return pixels, targets

        def on_epoch_end(self) -> None:
            if shuffle:
                self.generator.shuffle(self.order)

    return Batches()


def run(files: dict[str, list[str]], weights: str | None, epochs: int) -> dict[str, Any]:
    """Train for `epochs`; return seconds, accuracy and Dice on the test split."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    started = time.perf_counter()
    import keras
    import pyarrow.parquet as pq

    from eagle_spark.metrics.scores import dice

    labels: set[str] = set()
    for uri in files["train"]:
        storage, path = resolve(uri)
        with storage.open(path) as stream:
            labels |= set(pq.ParquetFile(stream).read(["label"])["label"].to_pylist())
    classes = sorted(labels)
    train, test = (read_split(files[split], classes) for split in ("train", "test"))
    keras.utils.set_random_seed(7)
    model = build_network(len(classes), train[0].shape[1], weights)
    # One step compiles; then all variables get their initial values again.
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.asarray(variable) for variable in variables]
    warm = tuple(part[:BATCH] for part in train)
    model.fit(make_batches(*warm, shuffle=False), epochs=1, verbose=0)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    begun = time.perf_counter()

    marks, cpu = [begun], time.process_time()
    timer = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: marks.append(time.perf_counter())
    )
    model.fit(make_batches(*train, shuffle=True), epochs=epochs, verbose=0, callbacks=[timer])
    cpu = (time.process_time() - cpu) / epochs
    outputs = model.predict(make_batches(*test, shuffle=False), verbose=0)
    seconds = [after - before for before, after in pairwise(marks)]
    start, epoch = begun - started, statistics.median(seconds)
    return {
        "train_images": len(train[0]),
        "test_images": len(test[0]),
        "trained_epochs": epochs,
        "start_seconds": round(start, 1),
        "epoch_seconds": round(epoch, 1),
        "epoch_cpu_seconds": round(cpu, 1),
        "seconds_10_epochs": round(
            start + (sum(seconds) if epochs == EPOCHS else EPOCHS * epoch), 1
        ),
        "extrapolated": epochs != EPOCHS,
        "accuracy": round(float(np.mean(test[1] == outputs["label"].argmax(axis=1))), 4),
        "dice": round(float(dice(test[2], outputs["mask"][..., 0] >= THRESHOLD).mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", required=True)
    parser.add_argument("--weights", required=True, help="file, or none for a random start")
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    weights = None if options.weights == "none" else options.weights
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # no Spark runs beside Keras
        files = pool.apply(list_image_files, (absolute_uri(options.warehouse),))
    print(json.dumps(run(files, weights, options.epochs)))


if __name__ == "__main__":
    main()
