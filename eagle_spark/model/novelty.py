"""How unlike the images that a model was trained on an image is.

Two densities are fitted to images of the train split, each a probabilistic PCA (Tipping and
Bishop, Probabilistic Principal Component Analysis, 1999): one of what the class head sees, which
tells other bodies, views and things, and one of the image's detail, which tells other scanners and
processing. `benchmarks/novelty.py` holds them against other scores.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import BundleError

NOVELTY = "novelty.npz"
MAX_BYTES = 64 << 20  # unpacked; a hundred times what is written
BLOCK = 8  # pixels
TINY = 1e-2  # grey values squared, added to energies: below it is rounding
AXES = {"detail": 16, "features": 64}
LEAST_IMAGES_PER_AXIS = 4
_NONE = 1e-12

Floats = NDArray[np.float64]


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

    def surprise(self, values: NDArray[Any]) -> Floats:
        """Return the negative log density of rows `(n, d)` but for a constant, by dimension.

        About 0.5 for what the density was fitted to. A row's digits do not depend on the others.
        """
        return np.array([self._surprise(row) for row in values], np.float64)

    def _surprise(self, row: NDArray[Any]) -> float:
        found = (row - self.mean) / self.scale
        along = self.axes @ found
        across = np.square(found).sum() - np.square(along).sum()
        whole = (np.square(along) / self.variances).sum() + across / self.noise
        return float(whole / (2 * len(self.mean)))


def fit_density(values: NDArray[Any], axes: int) -> Density:
    """Fit a density to rows `(n, d)`, n > 1; of few rows with fewer axes."""
    from scipy.linalg import eigh

    rows, width = values.shape
    mean = values.mean(axis=0, dtype=np.float64)
    spread = values.std(axis=0, dtype=np.float64)
    # What never changed at home would make any other value infinitely surprising.
    scale = np.maximum(spread, 1e-3 * spread.max() or 1.0)
    standard = (values - mean) / scale
    kept = max(1, min(axes, rows // LEAST_IMAGES_PER_AXIS))
    # The smaller of both products has the same eigenvalues but zeros.
    few = rows < width
    product = standard @ standard.T if few else standard.T @ standard
    last = len(product) - 1
    squares, vectors = eigh(product, subset_by_index=(last - kept + 1, last))
    found = vectors.T
    if few:
        found = found @ standard / np.sqrt(np.maximum(squares, _NONE))[:, None]
    rest = max(0.0, float(np.trace(product) - squares.sum()))
    noise = rest / rows / (width - kept) or 1.0
    return Density(mean, scale, found, np.maximum(squares / rows, noise), noise)


@dataclass(frozen=True)
class Novelty:
    """The densities of a model, by the names of `AXES`."""

    densities: Mapping[str, Density]

    def surprise(
        self, pixels: NDArray[np.uint8], statistics: NDArray[np.float32]
    ) -> dict[str, Floats]:
        """Return each density's surprise at n images, `(n,)`.

        Args:
            pixels: `(n, size, size)`.
            statistics: `(n, STATISTICS)`, what an engine says of them.
        """
        values = {"detail": detail(pixels), "features": statistics}
        return {name: own.surprise(values[name]) for name, own in self.densities.items()}


def fit_novelty(values: Mapping[str, NDArray[Any]]) -> Novelty:
    """Fit a density to the `detail` and the `features` of the same images, `(n, …)`, n > 1."""
    return Novelty({name: fit_density(values[name], axes) for name, axes in AXES.items()})


def detail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how much detail of each kind images hold, `(n, 63)`.

    Log of the mean energy of each coefficient but the first of the discrete cosine transform (the
    orthonormal DCT-II) of blocks of 8 x 8 pixels, of every second row of blocks. What was scaled,
    sharpened, smoothed or compressed in another way has other energies, whatever it shows.

    An image's digits do not depend on the others.

    Args:
        pixels: `(n, size, size)`; of a size that is a multiple of 8.
    """
    return np.stack([_detail(image) for image in pixels])


def _detail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    size = len(image)
    # Half of the blocks say as much; this is paid for every image that is scored.
    rows = image.reshape(size // BLOCK, BLOCK, size)[::2].astype(np.float32)
    across = (rows.reshape(-1, BLOCK) @ _COSINES.T).reshape(-1, BLOCK, size)
    found = np.square(_COSINES @ across).reshape(-1, BLOCK, size // BLOCK, BLOCK)
    energies = found.mean(axis=(0, 2)).reshape(-1)[1:]
    logs: NDArray[np.float32] = np.log(energies + TINY)
    return logs


def _cosines() -> NDArray[np.float32]:
    place = np.arange(BLOCK)
    waves = np.cos(np.pi * (place + 0.5) * place[:, None] / BLOCK) * np.sqrt(2 / BLOCK)
    waves[0] /= np.sqrt(2)
    found: NDArray[np.float32] = waves.astype(np.float32)
    return found


_COSINES = _cosines()


def write_novelty(novelty: Novelty, file: Path) -> None:
    """Write it as `.npz`, in float32."""
    arrays = {
        f"{name}.{part}": np.asarray(value, np.float32)
        for name, density in novelty.densities.items()
        for part, value in vars(density).items()
    }
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_novelty(file: Path) -> Novelty:
    """Read what `write_novelty` wrote.

    Raises:
        BundleError: when it is missing or is something else.
    """
    try:
        with zipfile.ZipFile(file) as parts:
            if (size := sum(part.file_size for part in parts.infolist())) > MAX_BYTES:
                raise ValueError(f"{size} bytes unpacked, at most {MAX_BYTES} are read")
        with np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name].astype(np.float64) for name in found.files}
        return Novelty(
            {
                name: Density(
                    arrays[f"{name}.mean"],
                    arrays[f"{name}.scale"],
                    arrays[f"{name}.axes"],
                    arrays[f"{name}.variances"],
                    float(arrays[f"{name}.noise"]),
                )
                for name in AXES
            }
        )
    except (
        *(OSError, KeyError, ValueError, TypeError, EOFError, MemoryError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise BundleError(f"{file}: is not what novelty is told by: {error!r}") from error
