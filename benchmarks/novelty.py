"""Detection rates of novelty scores: PPCA densities compared with scores of the literature.

    python -m benchmarks.novelty --warehouse W --model DIR [--away DIR] [--count 2000]

Each score is fitted to the train split of the table `images`; its limit is the value that 5 % of
the validation split exceed. The table gives the share of images above the limit: of the test split,
where about 5 % are expected; of validation images after a synthetic change; of images that are no
X-rays; and, with `--away`, a labelled folder of another source, of `count` images of that folder,
correct and wrong predictions apart. The product's scores were selected by the synthetic changes;
`--away` is a test of the selection. The JSON goes to standard output, the table to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from eagle_spark.errors import ImageRejectedError
from eagle_spark.imaging.decode import decode_image
from eagle_spark.model.card import render_table
from eagle_spark.model.engines import ModelOutputs
from eagle_spark.model.metadata import NETWORK
from eagle_spark.model.novelty import COMPONENTS, compute_detail, fit_density
from eagle_spark.model.predictor import Model, load_model
from eagle_spark.spark.session import open_session
from eagle_spark.tables import ACCEPTED, IMAGES, Warehouse
from eagle_spark.training.data import stack_pixels
from tests.helpers.processes import images_in

FALSE_ALARM_RATE = 0.05  # share of the validation split above each limit
BATCH = 64
NEIGHBOURS = 10
SUBSPACE = 256  # dimensions
THREADS = 2

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float64]
Score = Callable[[Pixels, ModelOutputs], Scores]


def per_image(change: Callable[[Image.Image], Image.Image]) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])


def resample(image: Image.Image) -> Image.Image:
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR)
    return half.resize(image.size, Image.Resampling.BICUBIC)


def compress(image: Image.Image) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=50)
    return Image.open(stream)


def add_noise(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(7).normal(0, 4, pixels.shape)
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)


def apply_gamma(gamma: float) -> Callable[[Pixels], Pixels]:
    levels = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return lambda pixels: levels[pixels]


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "blur 0.7": per_image(lambda image: image.filter(ImageFilter.GaussianBlur(0.7))),
    "sharpened": per_image(lambda image: image.filter(ImageFilter.UnsharpMask(2, 60, 0))),
    "half and back": per_image(resample),
    "JPEG 50": per_image(compress),
    "noise 4": add_noise,
    "gamma 0.6": apply_gamma(0.6),
    "gamma 1.6": apply_gamma(1.6),
    "inverted": lambda pixels: 255 - pixels,
    "upside down": lambda pixels: pixels[:, ::-1],
}


def draw_other_images(size: int) -> dict[str, Pixels]:
    """Return noise, and crops of the photos of scikit-learn."""
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(3)
    crops = []
    for photo in load_sample_images().images:
        grey = Image.fromarray(photo).convert("L")
        for _ in range(20):
            side = int(generator.integers(size, min(grey.size)))
            left, top = (int(generator.integers(0, length - side + 1)) for length in grey.size)
            crop = grey.crop((left, top, left + side, top + side))
            crops.append(np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)))
    return {
        "noise alone": generator.integers(0, 256, (40, size, size), np.uint8),
        "photos": np.stack(crops),
    }


def read_splits(warehouse: str, size: int) -> dict[str, tuple[Pixels, list[str]]]:
    """Return split -> pixels and labels of the accepted images."""
    with open_session("novelty", warehouse) as spark:
        rows = Warehouse(spark).read(IMAGES).where(ACCEPTED)
        frame = rows.select("split", "label", "pixels").toPandas()
    return {
        str(split): (stack_pixels(group["pixels"], size), group["label"].tolist())
        for split, group in frame.groupby("split")
    }


def read_class_folders(folder: Path, count: int, model: Model) -> tuple[Pixels, list[str]]:
    """Return about `count` images of class folders, at equal distances in the list of all."""
    files = [path for path in images_in(folder) if set(path.parts) & set(model.classes)]
    images, labels = [], []
    for path in files[:: max(1, len(files) // count)]:
        try:
            images.append(decode_image(path.read_bytes(), model.size).pixels)
        except ImageRejectedError:
            continue
        labels.append(next(name for name in model.classes if name in path.parts))
    return np.stack(images), labels


def fit_scores(
    pixels: Pixels, outputs: ModelOutputs, labels: NDArray[np.int64], folder: Path
) -> Iterator[tuple[str, Score]]:
    """Yield name and score, each fitted to the train split; larger means more novel."""
    yield "1 - confidence", lambda _, outputs: 1 - outputs.label.max(axis=1).astype(np.float64)
    yield "energy (Liu 2020)", energy(folder)
    yield "Mahalanobis by class (Lee 2018)", mahalanobis(outputs.statistics, labels)
    yield f"{NEIGHBOURS}th neighbour (Sun 2022)", neighbour(outputs.statistics)
    yield f"residual off {SUBSPACE} axes (Wang 2022)", residual(outputs.statistics)
    features = fit_density(outputs.statistics, COMPONENTS["features"])
    detail = fit_density(compute_detail(pixels), COMPONENTS["detail"])
    yield "PPCA of features", lambda _, outputs: features.negative_log_density(outputs.statistics)
    yield "PPCA of detail", lambda pixels, _: detail.negative_log_density(compute_detail(pixels))


def energy(folder: Path) -> Score:
    import keras

    heads = keras.models.load_model(folder / NETWORK, compile=False).get_layer("heads")
    weights = [heads.get_layer(name).get_weights() for name in ("label_units", "label")]

    def score(_: Pixels, outputs: ModelOutputs) -> Scores:
        (kernel, bias), (top, top_bias) = weights
        logits = np.maximum(outputs.statistics @ kernel + bias, 0) @ top + top_bias
        largest = logits.max(axis=1)
        sums = np.exp(logits - largest[:, None]).sum(axis=1)
        return -np.asarray(largest + np.log(sums), np.float64)

    return score


def mahalanobis(statistics: NDArray[np.float32], labels: NDArray[np.int64]) -> Score:
    from sklearn.covariance import LedoitWolf
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(statistics)
    rows = scaler.transform(statistics)
    means = np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)])
    precision = LedoitWolf(assume_centered=True).fit(rows - means[labels]).precision_

    def score(_: Pixels, outputs: ModelOutputs) -> Scores:
        residuals = scaler.transform(outputs.statistics)[:, None] - means
        products = np.einsum("ncd,de,nce->nc", residuals, precision, residuals, optimize=True)
        return np.asarray(products.min(axis=1), np.float64)

    return score


def neighbour(statistics: NDArray[np.float32]) -> Score:
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler, normalize

    scaler = StandardScaler().fit(statistics)
    index = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(normalize(scaler.transform(statistics)))

    def score(_: Pixels, outputs: ModelOutputs) -> Scores:
        distances, _ = index.kneighbors(normalize(scaler.transform(outputs.statistics)))
        return np.asarray(distances[:, -1], np.float64)

    return score


def residual(statistics: NDArray[np.float32]) -> Score:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(statistics)
    axes = PCA(min(SUBSPACE, len(statistics) // 2), random_state=0).fit(
        scaler.transform(statistics)
    )

    def score(_: Pixels, outputs: ModelOutputs) -> Scores:
        rows = scaler.transform(outputs.statistics)
        residuals = rows - axes.inverse_transform(axes.transform(rows))
        return np.asarray(np.linalg.norm(residuals, axis=1), np.float64)

    return score


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return score -> set of images -> share above the score's limit."""
    model = load_model(options.model, threads=THREADS)

    def predict(pixels: Pixels) -> ModelOutputs:
        parts = [model.compute_outputs(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
        return ModelOutputs(*map(np.concatenate, zip(*parts, strict=True)))

    def encode(labels: list[str]) -> NDArray[np.int64]:
        return np.array([model.classes.index(label) for label in labels])

    splits = read_splits(options.warehouse, model.size)
    val, _ = splits["val"]
    sets = {"home": splits["test"][0]}
    sets |= {name: change(val) for name, change in CHANGES.items()} | draw_other_images(model.size)
    predicted = {name: (pixels, predict(pixels)) for name, pixels in sets.items()}
    if options.away:
        pixels, labels = read_class_folders(options.away, options.count, model)
        outputs = predict(pixels)
        wrong = outputs.label.argmax(axis=1) != encode(labels)
        for name, rows in (("away, right", ~wrong), ("away, wrong", wrong)):
            predicted[name] = pixels[rows], ModelOutputs(*(part[rows] for part in outputs))
    train, labels = splits["train"]
    shares: dict[str, dict[str, float]] = {}
    scaled: dict[str, list[Scores]] = {name: [] for name in ("val", *predicted)}
    train_outputs, val_outputs = predict(train), predict(val)
    for name, score in fit_scores(train, train_outputs, encode(labels), model.bundle.path):
        reference = score(val, val_outputs)
        median, limit = np.median(reference), np.quantile(reference, 1 - FALSE_ALARM_RATE)
        values = {name: score(*images) for name, images in predicted.items()}
        shares[name] = {key: float(np.mean(value > limit)) for key, value in values.items()}
        if name.startswith("PPCA"):
            for key, value in (values | {"val": reference}).items():
                scaled[key].append((value - median) / (limit - median))
    larger = {name: np.max(parts, axis=0) for name, parts in scaled.items()}
    limit = np.quantile(larger.pop("val"), 1 - FALSE_ALARM_RATE)
    shares["both PPCA, the larger"] = {k: float(np.mean(v > limit)) for k, v in larger.items()}
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--away", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    shares = measure(parser.parse_args())
    columns = list(next(iter(shares.values())))
    rows = [(name, *(f"{row[column]:.2f}" for column in columns)) for name, row in shares.items()]
    print(render_table(("score", *columns), rows), file=sys.stderr)
    print(json.dumps(shares, indent=1))


if __name__ == "__main__":
    main()
