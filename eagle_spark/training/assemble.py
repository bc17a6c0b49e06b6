"""From trained heads to a model folder: one network, its exports, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import EagleError
from eagle_spark.io import join, locate
from eagle_spark.metrics.calibration import calibration, flagged_shares
from eagle_spark.metrics.evaluation import summarise
from eagle_spark.model.backbone import BackboneEngine
from eagle_spark.model.bundle import Bundle, publish_bundle, seal
from eagle_spark.model.engines import (
    ENGINES,
    INT8_FILE,
    OPENVINO_FILE,
    KerasEngine,
    Predictions,
    choose_engine,
)
from eagle_spark.model.export import joined, quantised, save_openvino, to_openvino
from eagle_spark.model.gate import judge_quality, run_gate, write_golden
from eagle_spark.model.metadata import NETWORK, WEIGHTS
from eagle_spark.model.novelty import NOVELTY, write_novelty
from eagle_spark.model.weights import weights_file
from eagle_spark.tables import IMAGES, Warehouse
from eagle_spark.training.arrays import unpack_arrays
from eagle_spark.training.data import TrainingData, some_pixels
from eagle_spark.training.evaluation import (
    Evaluator,
    outcomes_of,
    predict_rows,
    reference_of,
)
from eagle_spark.training.features import load_graph
from eagle_spark.training.plan import TrainPlan
from eagle_spark.training.ranks.rank import HEADS, MASK_THRESHOLD
from eagle_spark.training.review import Home, Onlooker, flags_of, learn_home, limits_of, novelty_of

if TYPE_CHECKING:
    import pandas as pd

MOST_APART = 0.02  # probability
EXAMPLES = 100  # images that int8 takes its ranges from
MAX_HEADS_BYTES = 2**28


def assemble(folder: Path, plan: TrainPlan, weights: str, staging: str) -> None:
    """Put backbone and trained heads together into one network, and save it in the folder."""
    from eagle_spark.model.network import build_network

    storage, path = locate(join(staging, HEADS))
    heads = unpack_arrays(storage.read(path, MAX_HEADS_BYTES))
    with weights_file(weights) as file:
        network = build_network(plan.classes, plan.size, weights=file, seed=plan.seed)
    network.get_layer("heads").set_weights(heads)
    network.save(folder / NETWORK)
    network.save_weights(folder / WEIGHTS)


def export(
    folder: Path, data: TrainingData, plan: TrainPlan, warehouse: Warehouse
) -> dict[str, dict[str, Any]]:
    """Add the exports and the golden images to the folder; return the results of the gate."""
    reference = KerasEngine(folder, plan.threads)
    save_openvino(to_openvino(reference.model), folder / OPENVINO_FILE)
    heads = reference.model.get_layer("heads")
    frozen = load_graph(plan.backbone)
    engine = BackboneEngine(frozen, plan.threads)
    wanted = write_golden(folder, data.golden, reference)
    if plan.backbone.precision == "int8":
        examples = some_pixels(warehouse, data.snapshot, "train", EXAMPLES)
        samples = [engine.features(image[None]) for image in examples]
        save_openvino(joined(frozen, quantised(to_openvino(heads), samples)), folder / INT8_FILE)
    else:
        check_assembled(engine, heads, data.golden, wanted)
    return run_gate(folder, data.golden, wanted, MASK_THRESHOLD, plan.threads, reference)


def check_assembled(
    engine: BackboneEngine, heads: Any, pixels: NDArray[np.uint8], wanted: Predictions
) -> None:
    """Hold the network against what the heads say of features as they were trained on.

    Raises:
        EagleError: when they differ by more than float16 explains.
    """
    features = engine.features(pixels)
    found = heads({name: value.astype(np.float16) for name, value in features.items()})
    pairs = ((found["label"], wanted.label), (found["mask"][..., 0], wanted.mask))
    apart = [float(np.abs(np.asarray(one) - other).max()) for one, other in pairs]
    if not max(apart) <= MOST_APART:
        raise EagleError(
            f"the assembled network differs from its heads on their features by {max(apart):.3g}, "
            f"more than {MOST_APART}"
        )


def judge(
    folder: Path,
    card: dict[str, Any],
    data: TrainingData,
    plan: TrainPlan,
    warehouse: Warehouse,
    staging: str,
) -> tuple[Bundle, str, dict[str, Any]]:
    """Measure the model on the val and test split, and seal it with what was found.

    What is measured is what will be served: the sealed folder, by the engine that scoring takes.

    Returns:
        The sealed model, the engine, and split -> figures.
    """
    images = warehouse.at(IMAGES, data.snapshot)

    def ship(name: str) -> tuple[str, str]:
        """Publish the folder as it is now for the workers; return where, and its model id."""
        model_id = seal(folder, card).model_id
        publish_bundle(folder, join(staging, name), overwrite=False)
        return join(staging, name), model_id

    reduced = [
        name
        for name, kind in ENGINES.items()
        if kind.precision != "f32" and (folder / kind.file).is_file()
    ]
    shipped = ship("bundle")
    asked = Evaluator(*shipped, "openvino", plan.threads, tuple(reduced))
    card["engines"] |= judge_reduced(
        predict_rows(images.where("split = 'val'"), asked), data.classes
    )
    engine = choose_engine(seal(folder, card), "auto")
    onlooker = Onlooker(*shipped, engine, plan.threads)
    count = sum(data.counts["train"].values())
    home = learn_home(images.where("split = 'train'"), count, onlooker)
    write_novelty(home.novelty, folder / NOVELTY)

    asked = Evaluator(*ship("bundle.served"), engine, plan.threads)
    rows = predict_rows(images.where("split <> 'train'"), asked)[engine]
    served = {
        split: rows[rows["split"] == split].reset_index(drop=True) for split in ("val", "test")
    }
    card |= said_of(served, home, data.classes, card["training"]["temperature"])
    return seal(folder, card), engine, card["metrics"]


def said_of(
    served: Mapping[str, pd.DataFrame],
    home: Home,
    classes: tuple[str, ...],
    temperature: float,
) -> dict[str, Any]:
    """Return what the card says of outcomes of the val and the test split.

    `metrics`, `calibration` and `flagged` of both; `review` and `reference` of the first alone.
    """
    limits = limits_of(served["val"], classes, home.masks)
    return {
        "metrics": {split: summarise(rows, classes) for split, rows in served.items()},
        "calibration": {
            split: calibration(rows, classes, temperature) for split, rows in served.items()
        },
        "review": limits.written(),
        "flagged": {
            split: flagged_shares(flags_of(rows, limits)) for split, rows in served.items()
        },
        "reference": reference_of(served["val"], classes, novelty_of(served["val"], limits)),
    }


def judge_reduced(
    val: Mapping[str, pd.DataFrame], classes: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Return what the gate says of the engines of lower precision in `val` (engine -> rows).

    One that the CPU of a worker could not run has fewer rows than `openvino`, and gets no result.
    """
    full = outcomes_of(val["openvino"], classes)
    return {
        name: judge_quality(outcomes_of(rows, classes), full, ENGINES[name].precision)
        for name, rows in val.items()
        if ENGINES[name].precision != "f32" and len(rows) == len(full.labels)
    }
