"""The page of the study of scale, and its settings beside the defaults of the code."""

from __future__ import annotations

import json
import subprocess
import sys

from eagle_spark.settings import MaintainSettings, ScoreSettings, TrainSettings
from eagle_spark.spark.batches import IMAGES_PER_TASK
from eagle_spark.tables.maintenance import TARGET_BYTES
from tests.helpers.processes import ROOT


def test_the_page_is_up_to_date() -> None:
    words = [sys.executable, "-m", "benchmarks.scale"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert done.stdout == (ROOT / "results" / "scale.md").read_bytes()


def test_the_coefficients_are_the_defaults_of_the_code() -> None:
    coefficients = json.loads((ROOT / "results" / "scale.json").read_text())["coefficients"]
    defaults = {
        "chunk": ScoreSettings.model_fields["chunk"].default,
        "keep_days": MaintainSettings.model_fields["keep_days"].default,
        "feature_budget_gb": TrainSettings.model_fields["feature_budget"].default,
        "images_per_task": IMAGES_PER_TASK,
        "target_bytes": TARGET_BYTES,
    }
    assert {name: coefficients[name]["value"] for name in defaults} == defaults
