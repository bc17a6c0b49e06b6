"""A model folder as every job takes it, of a network that was never trained."""

from __future__ import annotations

from pathlib import Path


def write_model(folder: Path, size: int) -> None:
    """Make the folder: its network knows nothing, but runs, exports and passes its gate."""
    import numpy as np

    from eagle_spark.model.bundle import seal
    from eagle_spark.model.engines import OPENVINO_FILE, KerasEngine
    from eagle_spark.model.exports import save_openvino, to_openvino
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
