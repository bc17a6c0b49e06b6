"""The evaluate job: any labelled folder against any model, beside what its card says."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eagle_spark.datasets.split import conflicting_labels
from eagle_spark.errors import Reason
from eagle_spark.evaluation.examine import Examiner, examine
from eagle_spark.evaluation.labelled import labelled_images, read_spellings
from eagle_spark.io import absolute_uri
from eagle_spark.metrics.evaluation import summarise
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import choose_engine
from eagle_spark.model.review import Flag
from eagle_spark.scoring.monitor import LARGE, NUMBERS, shift_of
from eagle_spark.scoring.predict import Predictor
from eagle_spark.settings import EvaluateSettings
from eagle_spark.spark.progress import watch_tasks
from eagle_spark.spark.session import open_session, threads_per_task
from eagle_spark.tables.runs import Run

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

MANY_NEW = 0.25  # share of images with the flag of novelty; at home it is a few hundredths


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Run the job and return its figures; nothing is written.

    Raises:
        BundleError: when the model folder is incomplete or altered.
        InputError: when the folder cannot be listed, or holds no folder of a class.
        SettingsError: when `classes` names a class that the model does not have.
    """
    run = Run.begin("evaluate", settings)
    bundle = open_bundle(settings.model)
    engine = choose_engine(bundle, "auto")
    spellings = read_spellings(settings.classes, bundle.classes)
    candidates = labelled_images(settings.input, spellings)
    with open_session("evaluate", None) as spark:
        predictor = Predictor(
            model=absolute_uri(settings.model),
            model_id=bundle.model_id,
            engine=engine,
            threads=threads_per_task(spark),
            run_id=run.run_id,
        )
        takeable = [one for one in candidates if one.reason is None]
        with watch_tasks(spark, "evaluate", len(takeable)):
            rows = examine(spark, takeable, Examiner(predictor, bundle.size))
        conflict = conflicting_labels(
            rows["image_id"].fillna(rows["path"]).tolist(), rows["truth"].tolist()
        )
        rows.loc[conflict, ["status", "reason"]] = ["rejected", str(Reason.CONFLICTING_LABELS)]
        sound = rows[rows["status"] == "scored"]
        shift = _shift(spark, sound, bundle)
    reasons = Counter(str(one.reason) for one in candidates if one.reason is not None)
    reasons.update(rows.loc[rows["status"] != "scored", "reason"])
    result = {
        "listed": len(candidates),
        "rejected": len(candidates) - len(sound),
        "by_reason": dict(sorted(reasons.items())),
        **_figures(sound, bundle.classes),
        **_beside_card(sound, shift, bundle),
        "engine": engine,
        "model_id": bundle.model_id,
        "run_id": run.run_id,
        "seconds": run.seconds,
    }
    for said in result["out_of_range_by"]:
        print(f"warning: out of the range of the model's card: {said}", file=sys.stderr, flush=True)
    return result


def _figures(sound: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Return what `summarise` says, the accuracy of each source, and whom `needs_review` caught."""
    truth = sound.drop(columns="label").rename(columns={"truth": "label"})
    found = summarise(truth, tuple(classes))
    sources = found.pop("by_source")
    wrong = sound["label"] != sound["truth"]
    flagged = sound["needs_review"].astype(bool)
    reasons = sound["review_reasons"].to_list()
    caught = {str(flag): np.array([flag in own for own in reasons], bool) for flag in Flag}
    return found | {
        "accuracy_by_source": {name: own["accuracy"] for name, own in sources.items()},
        "wrong": int(wrong.sum()),
        "wrong_flagged": int((wrong & flagged).sum()),
        "right_flagged": int((~wrong & flagged).sum()),
        "wrong_flagged_by": {name: int((wrong & own).sum()) for name, own in caught.items()},
        "right_flagged_by": {name: int((~wrong & own).sum()) for name, own in caught.items()},
    }


def _shift(spark: SparkSession, sound: pd.DataFrame, bundle: Bundle) -> dict[str, float]:
    reference = bundle.metadata.get("reference", {})
    if not reference.get("images") or sound.empty:
        return {}
    columns = ["path", "label", *NUMBERS]
    return shift_of(spark.createDataFrame(sound[columns]), reference)


def _beside_card(sound: pd.DataFrame, shift: Mapping[str, float], bundle: Bundle) -> dict[str, Any]:
    """Hold accuracy, novelty and shift against the card's test split.

    `out_of_range` is None where the card has no interval and nothing else is out of range.
    """
    card = bundle.metadata.get("metrics", {}).get("test", {})
    interval = card.get("intervals", {}).get("accuracy")
    said = [
        f"{name}: stability index {value} against the validation split, large above {LARGE}"
        for name, value in shift.items()
        if value > LARGE
    ]
    new = float((sound["novelty"] > 1).mean()) if len(sound) else 0.0
    if new > MANY_NEW:
        said.insert(
            0, f"{new:.0%} of the images are unlike the training data, many above {MANY_NEW:.0%}"
        )
    accuracy = float((sound["label"] == sound["truth"]).mean()) if len(sound) else None
    if interval and accuracy is not None and accuracy < interval[0]:
        said.insert(
            0,
            f"accuracy {accuracy:.3f} is below {interval[0]:.3f}, the lower end of the test "
            "split's 95 % interval",
        )
    return {
        "card_accuracy": card.get("accuracy"),
        "card_interval": interval,
        "shift": max(shift.values(), default=None),
        "shift_by": dict(shift),
        "out_of_range": bool(said) if said or interval else None,
        "out_of_range_by": said,
    }
