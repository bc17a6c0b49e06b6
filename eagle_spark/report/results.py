"""The last step of `make results`: tables and plots of two trainings, caveats beside each."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_spark.model.card import table
from eagle_spark.model.occlusion import BLANKED
from eagle_spark.report.occlusion import in_words
from eagle_spark.report.report import FIGURES, PLOTS

Figures = Mapping[str, Any]
TRAININGS = {"one": "The small collection alone", "both": "Both collections"}


def figures_table(card: Figures) -> str:
    """Return the test split's figures, of all images and of each source."""
    test = card["metrics"]["test"]
    names = ("accuracy", "balanced_accuracy", "ece", "dice", "iou", "hausdorff95")
    rows = []
    for source, found in [("all", test), *test["by_source"].items()]:
        ends = found["intervals"]
        cells = [shown(found[name], ends.get(name)) for name in names]
        rows.append((source, found["images"], *cells))
    return table(("test split", "images", *names), rows)


def shown(
    value: float | None, ends: Sequence[float] | None = None, digits: int | None = None
) -> str:
    if value is None:
        return "-"
    digits = digits or (1 if value > 2 else 3)
    interval = f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else ""
    return f"{value:.{digits}f}{interval}"


def confusion_table(card: Figures) -> str:
    cells = card["metrics"]["test"]["confusion"]
    rows = [(label, *row) for label, row in zip(card["classes"], cells, strict=True)]
    return table(("is, and is called", *card["classes"]), rows)


def shortcut_table(rows: Iterable[Figures]) -> str:
    return table(
        ("source", "class", "images", *BLANKED, "importance in lungs", "area of lungs"),
        [
            (
                *(row["source"], row["label"], row["images"]),
                *(shown(row["accuracy"][name], digits=2) for name in BLANKED),
                *(shown(row[name], digits=2) for name in ("inside", "area")),
            )
            for row in rows
        ],
    )


def left_out_table(card: Figures) -> str:
    found = card["left_out"]["by_source"]
    return table(
        ("source that was left out", "images", "accuracy", "balanced accuracy", "ece"),
        [
            (
                *(name, own["images"], shown(own["accuracy"], own["intervals"]["accuracy"])),
                *(shown(own["balanced_accuracy"]), shown(own["ece"])),
            )
            for name, own in found.items()
        ],
    )


def page(findings: Mapping[str, Figures], unseen: Figures, caveats: str) -> str:
    """Return Markdown of both trainings; `findings` are their `figures.json`."""
    parts = [
        "# Results",
        "Made by `make results`; every number is of that run. Intervals are 95 % bootstrap "
        "intervals by patient.",
    ]
    for name, title in TRAININGS.items():
        found = findings[name]
        card = found["card"]
        parts += [f"## {title}", caveats, figures_table(card), confusion_table(card)]
        if calibration := card.get("calibration", {}).get("test"):
            parts.append(
                f"Calibration error of the test split {calibration['ece_before']:.3f} before, "
                f"{calibration['ece']:.3f} after; 0.98 of the most confident "
                f"{calibration['coverage_98']:.2f} of its images are right."
            )
        if (card.get("left_out") or {}).get("images"):
            parts.append(left_out_table(card))
        parts += [" ".join(in_words(found["shortcuts"], card["classes"]))]
        parts += [shortcut_table(found["shortcuts"])]
        if probe := found["probe"]:
            parts.append(
                f"A linear probe tells the source of {probe['images']} validation images in "
                f"{probe['balanced_accuracy']:.2f} of the cases; a guess would in "
                f"{probe['chance']:.2f}."
            )
        if name == "one":
            parts += ["### Asked about the large collection, which it never saw", caveats]
            parts.append(unseen_words(unseen))
        parts.append(" ".join(f"![{plot}]({name}/{plot}.png)" for plot in ("accuracy", "loss")))
    return "\n\n".join(parts) + "\n"


def unseen_words(unseen: Figures) -> str:
    low, high = unseen["intervals"]["accuracy"]
    right = unseen["images"] - unseen["wrong"]
    return (
        f"Right on {unseen['accuracy']:.3f} [{low:.3f}, {high:.3f}] of {unseen['images']} images. "
        f"Of the {unseen['wrong']} wrong answers {unseen['wrong_flagged']} carry `needs_review`, "
        f"of the {right} right ones {unseen['right_flagged']}; shift {unseen['shift']}, "
        f"out of range: {unseen['out_of_range']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args()
    findings = {
        name: json.loads((given.work / f"{name}.report" / FIGURES).read_text())
        for name in TRAININGS
    }
    unseen = json.loads((given.work / "unseen.json").read_text())
    caveats = (given.out / "caveats.md").read_text().strip()
    (given.out / "README.md").write_text(page(findings, unseen, caveats))
    for name in TRAININGS:
        shutil.copytree(given.work / f"{name}.report" / PLOTS, given.out / name, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
