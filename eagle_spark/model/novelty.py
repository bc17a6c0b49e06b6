"""Novelty: the distance of an image from the training data of a model.

Two densities are fitted to images of the train split, each a probabilistic PCA (Tipping and
Bishop, Probabilistic Principal Component Analysis, 1999): one of the class head's input, which
detects other bodies, views and objects, and one of the image's detail, which detects other scanners
and processing. `benchmarks/novelty.py` compares them with other scores.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import ModelError

NOVELTY_FILE = "novelty.npz"
MAX_UNPACKED_BYTES = 64 << 20  # a hundred times the size that `write_novelty` writes
BLOCK_SIZE = 8  # pixels
ENERGY_OFFSET = 1e-2  # grey values squared; smaller energies are rounding errors
COMPONENTS = {"detail": 16, "features": 64}
MIN_IMAGES_PER_AXIS = 4
_MIN_EIGENVALUE = 1e-12

Floats = NDArray[np.float64]
Values = NDArray[np.floating]


@dataclass(frozen=True)
class Density:
    """A probabilistic PCA of standardised values.

    Attributes:
        mean: `(d,)`.
        scale: `(d,)`, standard deviations.
        axes: `(k, d)`, orthonormal rows.
        variances: `(k,)`, along the axes.
        noise: the variance along any other direction.
    """

    mean: Floats
    scale: Floats
    axes: Floats
    variances: Floats
    noise: float

    def negative_log_density(self, values: Values) -> Floats:
        """Return the negative log density per dimension, up to a constant, of rows `(n, d)`.

        About 0.5 on the fitted rows. A row's digits do not depend on the others.
        """
        return np.array([self._row_negative_log_density(row) for row in values], np.float64)

    def _row_negative_log_density(self, row: Values) -> float:
        standard = (row - self.mean) / self.scale
        along = self.axes @ standard
        across = np.square(standard).sum() - np.square(along).sum()
        distance = (np.square(along) / self.variances).sum() + across / self.noise
        return float(distance / (2 * len(self.mean)))


def fit_density(values: Values, axes: int) -> Density:
    """Fit a density to rows `(n, d)`, n > 1; few rows give fewer axes."""
    from scipy.linalg import eigh

    rows, width = values.shape
    mean = values.mean(axis=0, dtype=np.float64)
    spread = values.std(axis=0, dtype=np.float64)
    # A value that is constant in the training data would make any other infinitely novel.
    scale = np.maximum(spread, 1e-3 * spread.max() or 1.0)
    standard = (values - mean) / scale
    count = max(1, min(axes, rows // MIN_IMAGES_PER_AXIS))
    # The smaller of both products has the same non-zero eigenvalues.
    few = rows < width
    product = standard @ standard.T if few else standard.T @ standard
    last = len(product) - 1
    squares, vectors = eigh(product, subset_by_index=(last - count + 1, last))
    components = vectors.T
    if few:
        components = components @ standard / np.sqrt(np.maximum(squares, _MIN_EIGENVALUE))[:, None]
    rest = max(0.0, float(np.trace(product) - squares.sum()))
    noise = rest / rows / (width - count) or 1.0
    return Density(mean, scale, components, np.maximum(squares / rows, noise), noise)


@dataclass(frozen=True)
class NoveltyModel:
    """The densities of a model, by the names of `COMPONENTS`."""

    densities: Mapping[str, Density]

    def negative_log_density(
        self, pixels: NDArray[np.uint8], statistics: NDArray[np.float32]
    ) -> dict[str, Floats]:
        """Return each density's negative log density at n images, `(n,)`.

        Args:
            pixels: `(n, size, size)`.
            statistics: `(n, STATISTICS_COUNT)`, an engine's output on the same images.
        """
        values = {"detail": compute_detail(pixels), "features": statistics}
        return {
            name: density.negative_log_density(values[name])
            for name, density in self.densities.items()
        }


def fit_novelty(values: Mapping[str, Values]) -> NoveltyModel:
    """Fit a density to the `detail` and the `features` of the same images, `(n, …)`, n > 1."""
    return NoveltyModel(
        {name: fit_density(values[name], axes) for name, axes in COMPONENTS.items()}
    )


def compute_detail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the log mean energy of each of 63 spatial frequencies, `(n, 63)`.

    The frequencies are the coefficients but the first of the discrete cosine transform (the
    orthonormal DCT-II) of blocks of 8 x 8 pixels, of every second row of blocks. Images that were
    scaled, sharpened, smoothed or compressed differently have different energies, whatever their
    content.

    An image's digits do not depend on the others.

    Args:
        pixels: `(n, size, size)`; of a size that is a multiple of 8.
    """
    return np.stack([_compute_image_detail(image) for image in pixels])


def _compute_image_detail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    size = len(image)
    # Half of the blocks are as informative; this runs for every scored image.
    rows = image.reshape(size // BLOCK_SIZE, BLOCK_SIZE, size)[::2].astype(np.float32)
    across = (rows.reshape(-1, BLOCK_SIZE) @ _COSINES.T).reshape(-1, BLOCK_SIZE, size)
    squares = np.square(_COSINES @ across)
    blocks = squares.reshape(-1, BLOCK_SIZE, size // BLOCK_SIZE, BLOCK_SIZE)
    energies = blocks.mean(axis=(0, 2)).reshape(-1)[1:]
    logs: NDArray[np.float32] = np.log(energies + ENERGY_OFFSET)
    return logs


def _compute_cosines() -> NDArray[np.float32]:
    """Return the orthonormal DCT-II matrix, `(BLOCK_SIZE, BLOCK_SIZE)`."""
    index = np.arange(BLOCK_SIZE)
    waves = np.cos(np.pi * (index + 0.5) * index[:, None] / BLOCK_SIZE) * np.sqrt(2 / BLOCK_SIZE)
    waves[0] /= np.sqrt(2)
    cosines: NDArray[np.float32] = waves.astype(np.float32)
    return cosines


_COSINES = _compute_cosines()


def write_novelty(novelty: NoveltyModel, file: Path) -> None:
    """Write the densities as `.npz`, in float32."""
    arrays = {
        f"{name}.{part}": np.asarray(value, np.float32)
        for name, density in novelty.densities.items()
        for part, value in vars(density).items()
    }
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_novelty(file: Path) -> NoveltyModel:
    """Read a file of `write_novelty`.

    Raises:
        ModelError: when the file is missing or of another format.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > MAX_UNPACKED_BYTES:
                raise ValueError(f"{size} bytes unpacked, at most {MAX_UNPACKED_BYTES} are read")
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name].astype(np.float64) for name in stored.files}
        return NoveltyModel(
            {
                name: Density(
                    arrays[f"{name}.mean"],
                    arrays[f"{name}.scale"],
                    arrays[f"{name}.axes"],
                    arrays[f"{name}.variances"],
                    float(arrays[f"{name}.noise"]),
                )
                for name in COMPONENTS
            }
        )
    except (
        *(OSError, KeyError, ValueError, TypeError, EOFError, MemoryError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ModelError(f"{file}: not a novelty file: {error!r}") from error
