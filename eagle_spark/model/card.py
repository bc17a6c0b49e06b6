"""`MODEL_CARD.md` of a model folder: what `metadata.json` says, for people.

After Mitchell et al., Model Cards for Model Reporting (2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

NOT_INTENDED = (
    "Diagnosis, triage or treatment of patients.",
    "Images that are not chest X-rays of one frontal view: the model names one of its classes for "
    "whatever it is shown.",
    "Other diseases than its classes, and the absence of disease: it knows nothing else.",
    "Collections, scanners and programs that are not in its data, unless `evaluate` has said on "
    "labelled images from there what it is worth.",
)
FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "ece": "expected calibration error",
    "dice": "Dice of the lungs",
    "iou": "IoU of the lungs",
    "hausdorff95": "Hausdorff 95 of the lungs, pixels",
}
BY_CLASS = {"recall": "recall", "precision": "precision", "f1": "F1", "auroc": "AUROC"}


def model_card(card: Mapping[str, Any]) -> str:
    """Return Markdown of what stands in a model's metadata; sections of what is not there say so.

    Args:
        card: as in `metadata.json`, at least `model_id`, `intended_use`, `classes`, `input` and
            `engines`.
    """
    parts = [
        "# Model card",
        f"`{card['model_id']}`",
        "## Intended use",
        str(card["intended_use"]),
        "## Not intended",
        _listed(NOT_INTENDED),
        "## What it is",
        *_network(card),
        "## Data",
        *_data(card),
        "## Figures",
        *_figures(card),
        "## At a new hospital",
        *_left_out(card),
        "## Confidence",
        *_confidence(card),
        "## Engines",
        *_engines(card),
        "## Versions",
        table(("program", "version"), sorted(card.get("versions", {}).items())),
        "Digests of every file, and all of the above with more digits, stand in `metadata.json`.",
    ]
    return "\n\n".join(parts) + "\n"


def _network(card: Mapping[str, Any]) -> Iterator[str]:
    size, training = card["input"]["size"], card.get("training", {})
    yield (
        f"A frozen MobileNetV2 over one grey channel with two heads: a class head "
        f"({', '.join(card['classes'])}) and a decoder for the lungs. It takes {size} x {size} "
        f"pixels of 8 bits; normalisation: {card['input'].get('normalisation', 'in the network')}."
    )
    if settings := training.get("settings"):
        shown = {name: value for name, value in settings.items() if name not in _PLACES}
        yield "Settings: " + ", ".join(f"{name} {value}" for name, value in sorted(shown.items()))


_PLACES = ("warehouse", "model", "weights", "resume", "overwrite")


def _data(card: Mapping[str, Any]) -> Iterator[str]:
    training = card.get("training", {})
    if not training.get("images"):
        yield "Not recorded."
        return
    splits = training["images"]
    yield table(
        ("class", *splits),
        [(name, *(split.get(name, 0) for split in splits.values())) for name in card["classes"]],
    )
    yield table(
        ("source (train split)", *card["classes"]),
        [
            (source, *(counts.get(name, 0) for name in card["classes"]))
            for source, counts in training.get("sources", {}).items()
        ],
    )
    yield (
        f"{training.get('audited', 0)} images were audited before training: no patient, no copy "
        "and no near duplicate stands in two splits. Labels and masks are those of the "
        "collections. "
        f"Table `{training['table']}`, snapshot {training['snapshot_id']}."
    )


def _figures(card: Mapping[str, Any]) -> Iterator[str]:
    test = card.get("metrics", {}).get("test", {})
    if not test.get("images"):
        yield "Not measured."
        return
    yield (
        f"Of {test['images']} test images of {test['patients']} patients, which nothing was chosen "
        "by; 95 % bootstrap intervals by patient."
    )
    yield table(
        ("group", "images", *FIGURES.values()),
        [
            (name, found["images"], *(_figure(found, figure) for figure in FIGURES))
            for name, found in [("all", test), *test["by_source"].items()]
        ],
    )
    yield table(
        ("class", *BY_CLASS.values()),
        [
            (
                label,
                *(
                    _with_interval(
                        test[f"{name}_by_class"][label],
                        test["intervals"][f"{name}_by_class"][label],
                    )
                    for name in BY_CLASS
                ),
            )
            for label in card["classes"]
        ],
    )


def _left_out(card: Mapping[str, Any]) -> Iterator[str]:
    found = card.get("left_out") or {}
    if not found.get("images"):
        yield "Not known: the model was trained on one source. Expect less than above."
        return
    yield (
        "Each source, asked of a class head that was trained on the others alone. Expect this, not "
        "the figures above, of images from elsewhere."
    )
    yield table(
        ("source", "images", "accuracy", "balanced accuracy"),
        [
            (name, own["images"], _figure(own, "accuracy"), _figure(own, "balanced_accuracy"))
            for name, own in found["by_source"].items()
        ],
    )


def _confidence(card: Mapping[str, Any]) -> Iterator[str]:
    found = (card.get("calibration") or {}).get("test")
    if not found:
        yield "Not measured."
        return
    yield (
        f"Temperature {card['training']['temperature']:.2f}, chosen by the validation split. "
        f"Calibration error of the test split {found['ece_before']:.3f} before, "
        f"{found['ece']:.3f} after; 0.98 of the most confident {found['coverage_98']:.2f} of its "
        "images are right."
    )
    review = card.get("review", {})
    if review.get("novelty"):
        yield (
            f"A prediction needs review where its confidence is below {review['confidence']:.3f}, "
            "where the image is unlike the training data (novelty above 1), and where the "
            "predicted lungs are unlike those of the validation split. Where a hospital makes its "
            "pictures in another way, nearly all of them will need review."
        )
    if shares := card.get("flagged", {}):
        reasons = list(next(iter(shares.values())))
        rows = [
            (split, *(_short(own.get(name)) for name in reasons)) for split, own in shares.items()
        ]
        yield table(("share that needs review", *reasons), rows)


def _engines(card: Mapping[str, Any]) -> Iterator[str]:
    yield table(
        ("engine", "precision", "passed its gate", "labels like the reference"),
        [
            (
                name,
                result.get("precision", ""),
                "yes" if result.get("passed") else "no",
                _short(result.get("labels_equal")),
            )
            for name, result in card["engines"].items()
        ],
    )


def _figure(found: Mapping[str, Any], name: str) -> str:
    return _with_interval(found[name], found["intervals"].get(name))


def _with_interval(value: float | None, ends: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    return _short(value) + (f" ({_short(ends[0])} to {_short(ends[1])})" if ends else "")


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 2 else f"{value:.1f}"


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table; what cells hold cannot break it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
