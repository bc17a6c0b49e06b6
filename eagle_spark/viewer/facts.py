"""What the window says of a model, from its metadata."""

from __future__ import annotations

from typing import Any

from eagle_spark.model.bundle import Bundle
from eagle_spark.viewer.examine import Examiner
from eagle_spark.viewer.words import Words

FIGURES = ("accuracy", "dice", "calibration")
_KEYS = {"calibration": "ece"}


def name_lines(bundle: Bundle) -> tuple[str, str]:
    """Return the name of the folder with the beginning of the model id, and the whole id."""
    return f"{bundle.path.name} ({bundle.model_id[:12]})", bundle.model_id


def figure_lines(bundle: Bundle, words: Words) -> list[str]:
    """Return the figures of the test split, with their intervals where there are any."""
    test: dict[str, Any] = (bundle.metadata.get("metrics") or {}).get("test") or {}
    lines = []
    for name in FIGURES:
        key = _KEYS.get(name, name)
        if isinstance(value := test.get(key), int | float):
            ends = (test.get("intervals") or {}).get(key)
            text = words.number(value, 3)
            if ends:
                text = words.interval.format(text, *(words.number(end, 3) for end in ends))
            lines.append(f"{getattr(words, name)} {text}")
    if lines and "images" in test:
        lines.append(words.measured_on.format(test["images"], test.get("patients", "?")))
    return lines or [words.not_measured]


def engine_line(examiner: Examiner, words: Words) -> str:
    return words.digests.format(examiner.engine)
