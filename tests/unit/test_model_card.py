from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from eagle_spark.metrics.calibration import Calibration, ReliabilityCurve, RiskCoverage
from eagle_spark.metrics.evaluation import summarise
from eagle_spark.model.card import render_model_card
from eagle_spark.model.metadata import GateResult, InputContract, ModelMetadata, Training
from eagle_spark.model.review import FLAG_MEANINGS, Flag, ReviewThresholds

CLASSES = ("A", "B|C")
BARE = ModelMetadata(
    model_id="abc",
    intended_use="Research use only.",
    classes=CLASSES,
    input=InputContract(size=64),
    mask_threshold=0.5,
    review=ReviewThresholds(confidence=0.5, novelty={}, mask={}),
    engines={"keras": GateResult(passed=True)},
)


@pytest.fixture
def metadata() -> ModelMetadata:
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
    metrics = summarise(rows, CLASSES)
    training = Training(
        table="t",
        snapshot_id=5,
        audited=40,
        temperature=1.5,
        images={"train": {"A": 7, "B|C": 9}, "test": {"A": 1}},
        sources={"one": {"A": 3}},
        settings={"seed": 7, "warehouse": "/secret/place"},
    )
    return BARE.model_copy(
        update={"metrics": {"test": metrics}, "left_out": metrics, "training": training}
    )


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_card_without_metrics() -> None:
    text = render_model_card(BARE)
    assert "Research use only." in text
    for heading in ("Data", "Metrics", "Confidence"):
        section = text.split(f"## {heading}\n\n")[1].splitlines()[0]
        assert section in ("Not recorded.", "Not measured.")
    assert "requires several sources and cached features" in text
    assert lines(text, "| keras") == ["| keras |  | yes | - |"]


def test_metrics_have_intervals_by_source_and_class(metadata: ModelMetadata) -> None:
    text, test = render_model_card(metadata), metadata.test_metrics
    low, high = test.intervals.accuracy
    wanted = f"| all | 40 | {test.accuracy:.3f} ({low:.3f} to {high:.3f}) |"
    (all_row,) = lines(text, "| all |")
    assert all_row.startswith(wanted)
    assert len(lines(text, "| one | 20 |")) == 2  # figures, and what to expect elsewhere
    assert lines(text, "| A | 7 | 1 |")
    assert "/secret/place" not in text


def test_the_section_on_confidence_gives_the_review_thresholds(metadata: ModelMetadata) -> None:
    shares = {"any": 0.09, "confidence": 0.04, "novelty": 0.05, "mask": 0.01}
    curve = ReliabilityCurve(images=[4], confidence=[0.9], accuracy=[0.8])
    calibration = Calibration(
        ece_before=0.1,
        ece=0.02,
        reliability_before=curve,
        reliability=curve,
        risk_coverage=RiskCoverage(coverage=[1.0], risk=[0.1]),
        coverage_98=0.9,
    )
    sections = {
        "calibration": {"test": calibration},
        "review": ReviewThresholds(confidence=0.8, novelty={"detail": (0.5, 0.7)}, mask={}),
        "flagged": {"val": shares, "test": shares},
    }
    text = render_model_card(metadata.model_copy(update=sections))
    assert "threshold of the confidence is 0.800" in text
    for flag in Flag:
        assert lines(text, f"- `{flag}`: ") == [f"- `{flag}`: {FLAG_MEANINGS[flag]}."]
    assert lines(text, "| test | 0.090 | 0.040 | 0.050 | 0.010 |")
    assert "novelty" not in render_model_card(metadata)


def test_names_do_not_break_a_table(metadata: ModelMetadata) -> None:
    text = render_model_card(metadata)
    assert lines(text, "| B\\|C |")
    for table in text.split("\n\n"):
        if table.startswith("| "):
            columns = {line.replace("\\|", "").count("|") for line in table.splitlines()}
            assert len(columns) == 1
