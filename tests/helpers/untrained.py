"""A model folder as every job takes it, of a network that was never trained."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def write_model(folder: Path, size: int) -> None:
    """Make the folder: its network knows nothing, but runs, exports and passes its gate."""
    import numpy as np

    from eagle_spark.model.bundle import seal
    from eagle_spark.model.engines import OPENVINO_FILE, KerasEngine
    from eagle_spark.model.export import save_openvino, to_openvino
    from eagle_spark.model.gate import run_gate, write_golden
    from eagle_spark.model.metadata import NETWORK
    from eagle_spark.model.network import build_network

    folder.mkdir()
    build_network(("A", "B", "C"), size, weights=None, seed=1).save(folder / NETWORK)
    reference = KerasEngine(folder, 1)
    save_openvino(to_openvino(reference.model), folder / OPENVINO_FILE)
    pixels = np.random.default_rng(1).integers(0, 256, (8, size, size), np.uint8)
    wanted = write_golden(folder, pixels, reference)
    card = {
        "classes": ["A", "B", "C"],
        "input": {"size": size},
        "mask_threshold": 0.5,
        "review": {"confidence": 0.5, "novelty": {}, "mask": {}},
        "engines": run_gate(folder, pixels, wanted, 0.5, 1, reference),
    }
    assert seal(folder, card).engines["openvino"]["passed"]


def reseal(folder: Path, **changes: object) -> None:
    """Change what stands in the card of a model folder."""
    import json

    from eagle_spark.model.bundle import seal
    from eagle_spark.model.metadata import METADATA

    card = json.loads((folder / METADATA).read_text()) | changes
    (folder / METADATA).unlink()
    seal(folder, {key: value for key, value in card.items() if key not in ("model_id", "digests")})


def fit_to_drawn_images(folder: Path, size: int) -> dict[str, Any]:
    """Write the model's `novelty.npz` of drawn X-rays; return the limits of a review."""
    import numpy as np

    from eagle_spark.datasets.synthetic.sample import write_unlabelled
    from eagle_spark.imaging.decode import read_radiograph
    from eagle_spark.model.bundle import open_bundle
    from eagle_spark.model.engines import load_engine
    from eagle_spark.model.novelty import NOVELTY, detail, fit_novelty, write_novelty
    from eagle_spark.model.review import Limits
    from tests.helpers.nights import sound_images

    with TemporaryDirectory() as drawn:
        write_unlabelled(Path(drawn), 90, 11)
        sound = sound_images(Path(drawn))
        pixels = np.stack([read_radiograph(path.read_bytes(), size).pixels for path in sound])
    statistics = load_engine(open_bundle(str(folder)), "openvino", 1).predict(pixels).statistics
    # Limits come from images that the densities were not fitted to.
    fitted = slice(None, 2 * len(pixels) // 3)
    novelty = fit_novelty({"detail": detail(pixels[fitted]), "features": statistics[fitted]})
    write_novelty(novelty, folder / NOVELTY)
    limits = {
        name: (float(np.median(found)), 2 * float(found.max()))
        for name, found in novelty.surprise(pixels, statistics).items()
    }
    return Limits(0.5, limits, {"area": (0.0, 0.9)}).written()
