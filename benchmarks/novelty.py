"""Scores of novelty side by side: how much of what is new to a model does each catch?

    python -m benchmarks.novelty --warehouse W --model DIR [--away DIR] [--count 2000]

All scores are fitted to the train split of the table `images`; the limit of each is the value that
5 % of the validation split exceed. The table gives the share beyond it: of the test split, which
should be near 5 %; of validation images after a planted change; of images that are no X-rays; and,
with `--away`, a labelled folder of another source, of `count` images from there, those that the
model has right and wrong apart. What was chosen was chosen by the planted changes: `--away` only
says what came of it. The JSON goes to standard output, the table to standard error.
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

from eagle_spark.errors import ImageRejected
from eagle_spark.imaging.decode import read_radiograph
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.card import table
from eagle_spark.model.engines import Predictions, load_engine
from eagle_spark.model.metadata import NETWORK
from eagle_spark.model.novelty import AXES, detail, fit_density
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, Warehouse
from eagle_spark.training.data import stack_pixels
from tests.helpers.processes import images_in

ALARMS = 0.05  # share of the validation split beyond each limit
BATCH = 64
NEIGHBOURS = 10
SUBSPACE = 256  # dimensions
THREADS = 2

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float64]
Score = Callable[[Pixels, Predictions], Scores]


def by_file(change: Callable[[Image.Image], Image.Image]) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.stack([np.asarray(change(Image.fromarray(one))) for one in pixels])


def resampled(image: Image.Image) -> Image.Image:
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR)
    return half.resize(image.size, Image.Resampling.BICUBIC)


def compressed(image: Image.Image) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=50)
    return Image.open(stream)


def noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(7).normal(0, 4, pixels.shape)
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)


def with_gamma(gamma: float) -> Callable[[Pixels], Pixels]:
    levels = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return lambda pixels: levels[pixels]


PLANTED: dict[str, Callable[[Pixels], Pixels]] = {
    "blur 0.7": by_file(lambda image: image.filter(ImageFilter.GaussianBlur(0.7))),
    "sharpened": by_file(lambda image: image.filter(ImageFilter.UnsharpMask(2, 60, 0))),
    "half and back": by_file(resampled),
    "JPEG 50": by_file(compressed),
    "noise 4": noisy,
    "gamma 0.6": with_gamma(0.6),
    "gamma 1.6": with_gamma(1.6),
    "inverted": lambda pixels: 255 - pixels,
    "upside down": lambda pixels: pixels[:, ::-1],
}


def no_radiographs(size: int) -> dict[str, Pixels]:
    """Return noise, and pieces of the photos that scikit-learn brings."""
    from sklearn.datasets import load_sample_images

    draw = np.random.default_rng(3)
    pieces = []
    for photo in load_sample_images().images:
        grey = Image.fromarray(photo).convert("L")
        for _ in range(20):
            side = int(draw.integers(size, min(grey.size)))
            left, top = (int(draw.integers(0, length - side + 1)) for length in grey.size)
            piece = grey.crop((left, top, left + side, top + side))
            pieces.append(np.asarray(piece.resize((size, size), Image.Resampling.BILINEAR)))
    return {
        "noise alone": draw.integers(0, 256, (40, size, size), np.uint8),
        "photos": np.stack(pieces),
    }


def home(warehouse: str, size: int) -> dict[str, tuple[Pixels, list[str]]]:
    """Return split -> pixels and labels."""
    with open_session("novelty", warehouse) as spark:
        rows = Warehouse(spark).read(IMAGES).select("split", "label", "pixels").toPandas()
    return {
        str(split): (
            stack_pixels(own["pixels"], size),
            own["label"].tolist(),
        )
        for split, own in rows.groupby("split")
    }


def away(folder: Path, count: int, bundle: Bundle) -> tuple[Pixels, list[str]]:
    """Return some images of class folders, evenly over the list of all."""
    files = [path for path in images_in(folder) if set(path.parts) & set(bundle.classes)]
    found, labels = [], []
    for path in files[:: max(1, len(files) // count)]:
        try:
            found.append(read_radiograph(path.read_bytes(), bundle.size).pixels)
        except ImageRejected:
            continue
        labels.append(next(name for name in bundle.classes if name in path.parts))
    return np.stack(found), labels


def scores(
    pixels: Pixels, said: Predictions, labels: NDArray[np.int64], model: Path
) -> Iterator[tuple[str, Score]]:
    """Yield name and score, each fitted to the train split; larger is newer."""
    yield "1 - confidence", lambda _, said: 1 - said.label.max(axis=1).astype(np.float64)
    yield "energy (Liu 2020)", energy(model)
    yield "Mahalanobis by class (Lee 2018)", mahalanobis(said.statistics, labels)
    yield f"{NEIGHBOURS}th neighbour (Sun 2022)", neighbour(said.statistics)
    yield f"residual off {SUBSPACE} axes (Wang 2022)", residual(said.statistics)
    features = fit_density(said.statistics, AXES["features"])
    texture = fit_density(detail(pixels), AXES["detail"])
    yield "PPCA of features", lambda _, said: features.surprise(said.statistics)
    yield "PPCA of detail", lambda pixels, _: texture.surprise(detail(pixels))


def energy(model: Path) -> Score:
    import keras

    heads = keras.models.load_model(model / NETWORK, compile=False).get_layer("heads")
    weights = [heads.get_layer(name).get_weights() for name in ("label_units", "label")]

    def score(_: Pixels, said: Predictions) -> Scores:
        (kernel, bias), (top, top_bias) = weights
        logits = np.maximum(said.statistics @ kernel + bias, 0) @ top + top_bias
        most = logits.max(axis=1)
        return -(most + np.log(np.exp(logits - most[:, None]).sum(axis=1))).astype(np.float64)

    return score


def mahalanobis(statistics: NDArray[np.float32], labels: NDArray[np.int64]) -> Score:
    from sklearn.covariance import LedoitWolf
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(statistics)
    rows = scaler.transform(statistics)
    means = np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)])
    precision = LedoitWolf(assume_centered=True).fit(rows - means[labels]).precision_

    def score(_: Pixels, said: Predictions) -> Scores:
        apart = scaler.transform(said.statistics)[:, None] - means
        return np.einsum("ncd,de,nce->nc", apart, precision, apart, optimize=True).min(axis=1)

    return score


def neighbour(statistics: NDArray[np.float32]) -> Score:
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler, normalize

    scaler = StandardScaler().fit(statistics)
    known = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(normalize(scaler.transform(statistics)))

    def score(_: Pixels, said: Predictions) -> Scores:
        distances, _ = known.kneighbors(normalize(scaler.transform(said.statistics)))
        return np.asarray(distances[:, -1], np.float64)

    return score


def residual(statistics: NDArray[np.float32]) -> Score:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(statistics)
    axes = PCA(min(SUBSPACE, len(statistics) // 2), random_state=0).fit(
        scaler.transform(statistics)
    )

    def score(_: Pixels, said: Predictions) -> Scores:
        rows = scaler.transform(said.statistics)
        apart = rows - axes.inverse_transform(axes.transform(rows))
        return np.linalg.norm(apart, axis=1).astype(np.float64)

    return score


def measure(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return score -> set of images -> share beyond the score's limit."""
    bundle = open_bundle(given.model)
    engine = load_engine(bundle, "auto", THREADS)

    def ask(pixels: Pixels) -> Predictions:
        parts = [engine.predict(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
        return Predictions(*map(np.concatenate, zip(*parts, strict=True)))

    def numbers(labels: list[str]) -> NDArray[np.int64]:
        return np.array([bundle.classes.index(label) for label in labels])

    splits = home(given.warehouse, bundle.size)
    val, _ = splits["val"]
    sets = {"home": splits["test"][0]}
    sets |= {name: change(val) for name, change in PLANTED.items()} | no_radiographs(bundle.size)
    asked = {name: (pixels, ask(pixels)) for name, pixels in sets.items()}
    if given.away:
        pixels, labels = away(given.away, given.count, bundle)
        said = ask(pixels)
        wrong = said.label.argmax(axis=1) != numbers(labels)
        for name, rows in (("away, right", ~wrong), ("away, wrong", wrong)):
            asked[name] = pixels[rows], Predictions(*(part[rows] for part in said))
    train, labels = splits["train"]
    found: dict[str, dict[str, float]] = {}
    both: dict[str, list[Scores]] = {name: [] for name in ("val", *asked)}
    said_of_train, said_of_val = ask(train), ask(val)
    for name, score in scores(train, said_of_train, numbers(labels), bundle.path):
        usual = score(val, said_of_val)
        middle, limit = np.median(usual), np.quantile(usual, 1 - ALARMS)
        values = {name: score(*images) for name, images in asked.items()}
        found[name] = {key: float(np.mean(value > limit)) for key, value in values.items()}
        if name.startswith("PPCA"):
            for key, value in (values | {"val": usual}).items():
                both[key].append((value - middle) / (limit - middle))
    larger = {name: np.max(parts, axis=0) for name, parts in both.items()}
    limit = np.quantile(larger.pop("val"), 1 - ALARMS)
    found["both PPCA, the larger"] = {k: float(np.mean(v > limit)) for k, v in larger.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--away", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    found = measure(parser.parse_args())
    columns = list(next(iter(found.values())))
    rows = [(name, *(f"{own[column]:.2f}" for column in columns)) for name, own in found.items()]
    print(table(("score", *columns), rows), file=sys.stderr)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
