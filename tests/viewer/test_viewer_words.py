"""Both languages define every string."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.errors import Reason
from eagle_spark.model.review import Flag
from eagle_spark.viewer.words import ENGLISH, LANGUAGES, SPANISH, Strings, get_strings

IMAGES = Path(__file__).resolve().parents[2] / "eagle_spark/imaging"


def flatten(strings: Strings) -> dict[str, str]:
    """Return every text of a language by its name, including those of mappings."""
    texts: dict[str, str] = {}
    for field in fields(strings):
        value: Any = getattr(strings, field.name)
        if isinstance(value, str):
            texts[field.name] = value
        else:
            texts |= {f"{field.name}.{key}": text for key, text in value.items()}
    return texts


def test_every_text_is_translated() -> None:
    english, spanish = flatten(ENGLISH), flatten(SPANISH)
    assert english.keys() == spanish.keys()
    assert all(text.strip() for text in spanish.values())
    assert [name for name in english if english[name] == spanish[name]] == []


def test_translations_have_the_same_placeholders() -> None:
    for name, text in flatten(ENGLISH).items():
        assert text.count("{}") == flatten(SPANISH)[name].count("{}"), name


@pytest.mark.parametrize("strings", LANGUAGES.values(), ids=LANGUAGES)
def test_every_rejection_reason_has_a_text(strings: Strings) -> None:
    sources = "".join(path.read_text() for path in IMAGES.rglob("*.py") if path.name != "mask.py")
    raised = {Reason[name] for name in re.findall(r"\bReason\.(\w+)", sources)}
    assert len(raised) >= 9
    assert raised | {Reason.UNREADABLE} == strings.rejection_reasons.keys()


@pytest.mark.parametrize("strings", LANGUAGES.values(), ids=LANGUAGES)
def test_every_review_reason_has_a_text(strings: Strings) -> None:
    assert strings.review_reasons.keys() == {str(flag) for flag in Flag}


@pytest.mark.parametrize("strings", LANGUAGES.values(), ids=LANGUAGES)
def test_mnemonics_are_unique_in_each_menu(strings: Strings) -> None:
    menus = (
        ("file_menu", "view_menu", "language_menu", "help_menu"),
        ("open_images", "open_folder", "open_model", "save_overlay", "save_result", "quit"),
        ("next_image", "previous_image", "reset_window", "show_lungs"),
    )
    for names in menus:
        texts = [getattr(strings, name) for name in names]
        mnemonics = [key.lower() for text in texts for key in re.findall(r"&(\w)", text)]
        assert len(mnemonics) == len(set(mnemonics)) == len(names)


def test_probabilities_are_not_rounded_to_0_or_100_percent() -> None:
    assert ENGLISH.format_probability(0.99996) == "> 99.9 %"
    assert SPANISH.format_probability(0.00004) == "< 0,1 %"
    assert SPANISH.format_probability(0.5) == "50,0 %"


def test_an_unsupported_language_falls_back_to_english() -> None:
    assert get_strings("es_MX") is SPANISH
    assert get_strings("C") is ENGLISH
