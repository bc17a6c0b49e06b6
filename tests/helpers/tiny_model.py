"""A valid model folder with an untrained network."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory


def write_model(folder: Path, size: int) -> None:
    """Write a model folder with an untrained network that passes its gate."""
    import numpy as np

    from eagle_spark.model.bundle import seal
    from eagle_spark.model.engines import OPENVINO_FILE, KerasEngine
    from eagle_spark.model.export import save_openvino, to_openvino
    from eagle_spark.model.gate import run_gate, write_golden
    from eagle_spark.model.metadata import NETWORK, InputContract, ModelMetadata
    from eagle_spark.model.network import build_network
    from eagle_spark.model.review import ReviewThresholds

    folder.mkdir()
    build_network(("A", "B", "C"), size, weights=None, seed=1).save(folder / NETWORK)
    reference = KerasEngine(folder, 1)
    save_openvino(to_openvino(reference.model), folder / OPENVINO_FILE)
    pixels = np.random.default_rng(1).integers(0, 256, (8, size, size), np.uint8)
    wanted = write_golden(folder, pixels, reference)
    metadata = ModelMetadata(
        classes=("A", "B", "C"),
        input=InputContract(size=size),
        mask_threshold=0.5,
        review=ReviewThresholds(confidence=0.5, novelty={}, mask={}),
        engines=run_gate(folder, pixels, wanted, 0.5, 1, reference),
    )
    assert seal(folder, metadata).metadata.engines["openvino"].passed


def reseal(folder: Path, **changes: object) -> None:
    """Change the metadata of a model folder."""
    import json

    from eagle_spark.model.bundle import seal
    from eagle_spark.model.metadata import METADATA, ModelMetadata

    values = json.loads((folder / METADATA).read_text()) | changes
    (folder / METADATA).unlink()
    seal(folder, ModelMetadata.model_validate(values))


def fit_review_thresholds(folder: Path, size: int) -> dict[str, object]:
    """Write `novelty.npz` of synthetic X-rays; return the review thresholds."""
    import numpy as np

    from eagle_spark.datasets.synthetic.sample import write_unlabelled
    from eagle_spark.imaging.decode import decode_image
    from eagle_spark.model.novelty import NOVELTY_FILE, compute_detail, fit_novelty, write_novelty
    from eagle_spark.model.predictor import ModelRef
    from eagle_spark.model.review import ReviewThresholds
    from tests.helpers.score_runs import list_valid_images

    with TemporaryDirectory() as drawn:
        write_unlabelled(Path(drawn), 90, 11)
        sound = list_valid_images(Path(drawn))
        pixels = np.stack([decode_image(path.read_bytes(), size).pixels for path in sound])
    model = ModelRef(str(folder), None, "openvino", 1).load()
    statistics = model.compute_outputs(pixels).statistics
    # Thresholds come from images that the densities were not fitted to.
    fitted = slice(None, 2 * len(pixels) // 3)
    novelty = fit_novelty(
        {"detail": compute_detail(pixels[fitted]), "features": statistics[fitted]}
    )
    write_novelty(novelty, folder / NOVELTY_FILE)
    limits = {
        name: (float(np.median(found)), 2 * float(found.max()))
        for name, found in novelty.negative_log_density(pixels, statistics).items()
    }
    thresholds = ReviewThresholds(confidence=0.5, novelty=limits, mask={"area": (0.0, 0.9)})
    return thresholds.to_dict()
