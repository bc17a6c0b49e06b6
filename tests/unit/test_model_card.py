from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from eagle_spark.metrics.evaluation import summarise
from eagle_spark.model.card import model_card

CLASSES = ("A", "B|C")
BARE: dict[str, Any] = {
    "model_id": "abc",
    "intended_use": "Research use only.",
    "classes": list(CLASSES),
    "input": {"size": 64},
    "engines": {"keras": {"passed": True}},
}


@pytest.fixture
def card() -> dict[str, Any]:
    draw = np.random.default_rng(0)
    sure = draw.uniform(0, 1, 40)
    rows = pd.DataFrame(
        {
            "source": ["one", "two"] * 20,
            "patient": [f"p{number // 2}" for number in range(40)],
            "label": [CLASSES[int(share > 0.4)] for share in sure],
            "probabilities": list(np.stack([1 - sure, sure], axis=1)),
            **dict.fromkeys(("dice", "iou", "hausdorff95"), np.nan),
        }
    )
    found = summarise(rows, CLASSES)
    return BARE | {
        "metrics": {"test": found},
        "left_out": found,
        "training": {
            "table": "t",
            "snapshot_id": 5,
            "audited": 40,
            "temperature": 1.5,
            "images": {"train": {"A": 7, "B|C": 9}, "test": {"A": 1}},
            "sources": {"one": {"A": 3}},
            "settings": {"seed": 7, "warehouse": "/secret/place"},
        },
    }


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_model_of_which_nothing_is_known_says_so() -> None:
    text = model_card(BARE)
    assert "Research use only." in text
    for heading in ("Data", "Figures", "Confidence"):
        section = text.split(f"## {heading}\n\n")[1].splitlines()[0]
        assert section in ("Not recorded.", "Not measured.")
    assert "Not known: the model was trained on one source" in text
    assert lines(text, "| keras") == ["| keras |  | yes | - |"]


def test_figures_stand_with_their_intervals_by_source_and_class(card: dict[str, Any]) -> None:
    text, test = model_card(card), card["metrics"]["test"]
    low, high = test["intervals"]["accuracy"]
    wanted = f"| all | 40 | {test['accuracy']:.3f} ({low:.3f} to {high:.3f}) |"
    (all_row,) = lines(text, "| all |")
    assert all_row.startswith(wanted)
    assert len(lines(text, "| one | 20 |")) == 2  # figures, and what to expect elsewhere
    assert lines(text, "| A | 7 | 1 |")
    assert "/secret/place" not in text


def test_the_section_on_confidence_says_when_a_person_has_to_look(card: dict[str, Any]) -> None:
    shares = {"any": 0.09, "confidence": 0.04, "novelty": 0.05, "mask": 0.01}
    found = {
        "calibration": {"test": {"ece_before": 0.1, "ece": 0.02, "coverage_98": 0.9}},
        "review": {"confidence": 0.8, "novelty": {"detail": [0.5, 0.7]}, "mask": {}},
        "flagged": {"val": shares, "test": shares},
    }
    text = model_card(card | found)
    assert "its confidence is below 0.800" in text
    assert lines(text, "| test | 0.090 | 0.040 | 0.050 | 0.010 |")
    assert "novelty" not in model_card(card)


def test_what_names_hold_does_not_break_a_table(card: dict[str, Any]) -> None:
    text = model_card(card)
    assert lines(text, "| B\\|C |")
    for table in text.split("\n\n"):
        if table.startswith("| "):
            columns = {line.replace("\\|", "").count("|") for line in table.splitlines()}
            assert len(columns) == 1
