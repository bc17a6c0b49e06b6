"""Both languages say everything."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.errors import Reason
from eagle_spark.viewer.words import ENGLISH, LANGUAGES, SPANISH, Words, words_of

IMAGES = Path(__file__).resolve().parents[2] / "eagle_spark/imaging"


def texts(words: Words) -> dict[str, str]:
    """Every text of a language by its name, those of mappings too."""
    found: dict[str, str] = {}
    for field in fields(words):
        value: Any = getattr(words, field.name)
        if isinstance(value, str):
            found[field.name] = value
        else:
            found |= {f"{field.name}.{key}": text for key, text in value.items()}
    return found


def test_no_text_is_left_in_english() -> None:
    english, spanish = texts(ENGLISH), texts(SPANISH)
    assert english.keys() == spanish.keys()
    assert all(text.strip() for text in spanish.values())
    assert [name for name in english if english[name] == spanish[name]] == []


def test_the_same_is_filled_in() -> None:
    for name, text in texts(ENGLISH).items():
        assert text.count("{}") == texts(SPANISH)[name].count("{}"), name


@pytest.mark.parametrize("words", LANGUAGES.values(), ids=LANGUAGES)
def test_every_reason_to_reject_an_image_is_told(words: Words) -> None:
    sources = "".join(path.read_text() for path in IMAGES.rglob("*.py") if path.name != "mask.py")
    raised = {Reason[name] for name in re.findall(r"\bReason\.(\w+)", sources)}
    assert len(raised) >= 9
    assert raised | {Reason.UNREADABLE} == words.reasons.keys()


@pytest.mark.parametrize("words", LANGUAGES.values(), ids=LANGUAGES)
def test_a_key_stands_once_in_each_menu(words: Words) -> None:
    menus = (
        ("file", "view", "languages", "help"),
        ("open_image", "open_folder", "open_model", "save_overlay", "save_result", "leave"),
        ("following", "preceding", "whole_window", "lungs_on_off"),
    )
    for names in menus:
        keys = [re.findall(r"&(\w)", getattr(words, name)) for name in names]
        flat = [key.lower() for found in keys for key in found]
        assert len(flat) == len(set(flat)) == len(names)


def test_rounding_makes_nothing_certain() -> None:
    assert ENGLISH.chance(0.99996) == "> 99.9 %"
    assert SPANISH.chance(0.00004) == "< 0,1 %"
    assert SPANISH.chance(0.5) == "50,0 %"


def test_an_unknown_language_is_english() -> None:
    assert words_of("es_MX") is SPANISH
    assert words_of("C") is ENGLISH
