"""From trained heads to a model folder: the assembled network, its exports and its evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import EagleError
from eagle_spark.io import join, resolve
from eagle_spark.metrics.calibration import (
    Calibration,
    compute_calibration,
    compute_flagged_shares,
)
from eagle_spark.metrics.drift import Reference
from eagle_spark.metrics.evaluation import Metrics, summarise
from eagle_spark.model.backbone import BackboneEngine
from eagle_spark.model.bundle import Bundle, publish_bundle, seal
from eagle_spark.model.engines import (
    ENGINES,
    INT8_FILE,
    OPENVINO_FILE,
    KerasEngine,
    ModelOutputs,
    choose_engine,
)
from eagle_spark.model.export import join_graphs, quantise, save_openvino, to_openvino
from eagle_spark.model.gate import compare_outcomes, run_gate, write_golden
from eagle_spark.model.metadata import NETWORK, WEIGHTS, GateResult, ModelMetadata
from eagle_spark.model.novelty import NOVELTY_FILE, write_novelty
from eagle_spark.model.review import ReviewThresholds
from eagle_spark.model.weights import fetch_weights
from eagle_spark.tables import Warehouse
from eagle_spark.training.arrays import unpack_arrays
from eagle_spark.training.data import TrainingData, sample_pixels
from eagle_spark.training.evaluation import (
    Evaluator,
    compute_reference,
    predict_rows,
    to_outcomes,
)
from eagle_spark.training.features import load_graph
from eagle_spark.training.plan import TrainPlan
from eagle_spark.training.ranks.rank import HEADS, MASK_THRESHOLD
from eagle_spark.training.review_thresholds import (
    ReferenceDistribution,
    StatisticsWorker,
    fit_reference,
    fit_thresholds,
    flag_outcomes,
    novelty_of_outcomes,
)

if TYPE_CHECKING:
    import keras
    import pandas as pd

MAX_ASSEMBLY_ERROR = 0.02  # probability
CALIBRATION_IMAGES = 100  # images that the ranges of int8 are computed from
MAX_HEADS_BYTES = 2**28


def assemble_network(folder: Path, plan: TrainPlan, weights: str, staging: str) -> None:
    """Join backbone and trained heads to one network, and save it in the folder."""
    from eagle_spark.model.network import build_network

    storage, path = resolve(join(staging, HEADS))
    heads = unpack_arrays(storage.read(path, MAX_HEADS_BYTES))
    with fetch_weights(weights) as file:
        network = build_network(plan.classes, plan.size, weights=file, seed=plan.seed)
    network.get_layer("heads").set_weights(heads)
    network.save(folder / NETWORK)
    network.save_weights(folder / WEIGHTS)


def export_engines(
    folder: Path, data: TrainingData, plan: TrainPlan, warehouse: Warehouse
) -> dict[str, GateResult]:
    """Add the exports and the golden images to the folder; return the results of the gate."""
    reference = KerasEngine(folder, plan.threads)
    save_openvino(to_openvino(reference.model), folder / OPENVINO_FILE)
    heads = reference.model.get_layer("heads")
    frozen = load_graph(plan.backbone)
    engine = BackboneEngine(frozen, plan.threads)
    expected = write_golden(folder, data.golden, reference)
    if plan.backbone.precision == "int8":
        images = sample_pixels(warehouse, data.snapshot, "train", CALIBRATION_IMAGES)
        samples = [engine.compute_features(image[None]) for image in images]
        save_openvino(
            join_graphs(frozen, quantise(to_openvino(heads), samples)), folder / INT8_FILE
        )
    else:
        check_assembled(engine, heads, data.golden, expected)
    return run_gate(folder, data.golden, expected, MASK_THRESHOLD, plan.threads, reference)


def check_assembled(
    engine: BackboneEngine, heads: keras.Model, pixels: NDArray[np.uint8], expected: ModelOutputs
) -> None:
    """Compare the network's outputs with those of the heads on float16 features, as in training.

    Args:
        pixels: `(n, size, size)`.
        expected: outputs of the assembled network.

    Raises:
        EagleError: when they differ by more than float16 explains.
    """
    features = engine.compute_features(pixels)
    outputs = heads({name: value.astype(np.float16) for name, value in features.items()})
    pairs = ((outputs["label"], expected.label), (outputs["mask"][..., 0], expected.mask))
    errors = [float(np.abs(np.asarray(actual) - wanted).max()) for actual, wanted in pairs]
    if not max(errors) <= MAX_ASSEMBLY_ERROR:
        raise EagleError(
            "the assembled network differs from its heads on the same features by "
            f"{max(errors):.3g}, more than {MAX_ASSEMBLY_ERROR}"
        )


class EvaluationSections(TypedDict):
    """The sections of `ModelMetadata` on the outcomes of the val and the test split."""

    metrics: dict[str, Metrics]
    calibration: dict[str, Calibration | None]
    review: ReviewThresholds
    flagged: dict[str, dict[str, float]]
    reference: Reference


def evaluate_and_seal(
    folder: Path,
    metadata: ModelMetadata,
    data: TrainingData,
    plan: TrainPlan,
    warehouse: Warehouse,
    staging: str,
) -> tuple[Bundle, str]:
    """Evaluate the model on the val and test split, and seal its folder with the results.

    The evaluation runs the sealed folder by the engine that scoring selects.

    Args:
        folder: the network and its exports.
        metadata: of the model, without the sections that this function computes.
        data: the training data.
        plan: of the training.
        warehouse: holds the images.
        staging: URI of a folder for copies of the model that workers load.

    Returns:
        The sealed model and the engine.
    """
    images = warehouse.read_images(data.snapshot)

    def publish_for_workers(name: str, metadata: ModelMetadata) -> tuple[str, str]:
        """Publish the current folder to the staging folder; return its URI and model id."""
        model_id = seal(folder, metadata).metadata.model_id
        publish_bundle(folder, join(staging, name), overwrite=False)
        return join(staging, name), model_id

    reduced = [
        name
        for name, kind in ENGINES.items()
        if kind.precision != "f32" and (folder / kind.file).is_file()
    ]
    model_ref = publish_for_workers("bundle", metadata)
    evaluator = Evaluator(*model_ref, "openvino", plan.threads, tuple(reduced))
    gate_results = gate_reduced_engines(
        predict_rows(images.where("split = 'val'"), evaluator), data.classes
    )
    metadata = metadata.model_copy(update={"engines": {**metadata.engines, **gate_results}})
    engine = choose_engine(seal(folder, metadata), "auto")
    worker = StatisticsWorker(*model_ref, engine, plan.threads)
    count = sum(data.counts["train"].values())
    reference = fit_reference(images.where("split = 'train'"), count, worker)
    write_novelty(reference.novelty, folder / NOVELTY_FILE)

    evaluator = Evaluator(*publish_for_workers("bundle.served", metadata), engine, plan.threads)
    rows = predict_rows(images.where("split <> 'train'"), evaluator)[engine]
    outcomes = {
        split: rows[rows["split"] == split].reset_index(drop=True) for split in ("val", "test")
    }
    sections = evaluation_sections(outcomes, reference, data.classes, metadata.training.temperature)
    return seal(folder, metadata.model_copy(update=sections)), engine


def evaluation_sections(
    outcomes: Mapping[str, pd.DataFrame],
    reference: ReferenceDistribution,
    classes: tuple[str, ...],
    temperature: float,
) -> EvaluationSections:
    """Compute the sections; `review` and `reference` are of the val split alone.

    Args:
        outcomes: split -> rows of `predict_rows`.
        reference: distribution of the train split.
        classes: of the model.
        temperature: of the class head.
    """
    thresholds = fit_thresholds(outcomes["val"], classes, reference.masks)
    novelty = novelty_of_outcomes(outcomes["val"], thresholds)
    return {
        "metrics": {split: summarise(rows, classes) for split, rows in outcomes.items()},
        "calibration": {
            split: compute_calibration(rows, classes, temperature)
            for split, rows in outcomes.items()
        },
        "review": thresholds,
        "flagged": {
            split: compute_flagged_shares(flag_outcomes(rows, thresholds))
            for split, rows in outcomes.items()
        },
        "reference": compute_reference(outcomes["val"], classes, novelty),
    }


def gate_reduced_engines(
    outcomes: Mapping[str, pd.DataFrame], classes: tuple[str, ...]
) -> dict[str, GateResult]:
    """Return engine -> result of the gate for the engines of lower precision.

    An engine that the CPU of a worker could not run has fewer rows than `openvino`, and no result.

    Args:
        outcomes: engine -> rows of the val split.
    """
    full = to_outcomes(outcomes["openvino"], classes)
    return {
        name: compare_outcomes(to_outcomes(rows, classes), full, ENGINES[name].precision)
        for name, rows in outcomes.items()
        if ENGINES[name].precision != "f32" and len(rows) == len(full.labels)
    }
