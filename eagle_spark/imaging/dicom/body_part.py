"""Parse free text in `BodyPartExamined` and `Modality`: chest or not, X-ray or not.

DICOM defines terms for both (PS3.16 Annex L, PS3.3 C.7.3.1.1.1). Operators type other values: in
the language of the clinic, with accents damaged by a wrong character set, cut off after the 16
characters of the value representation CS.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress

MODALITIES = frozenset(("CR", "DR", "DX", "RG"))
_MODALITY_SYNONYMS = frozenset(("RX", "XR", "XRAY"))

# Stems of words for chest, lungs and ribs, without accents.
_STEMS = (
    *("chest", "chst", "cxr", "thora", "torac", "toraks", "thx", "lung", "pulm", "rib"),
    *("pecho", "peito", "petto", "costill", "costela", "costol", "polmon"),
    *("poitrine", "poumon", "brust", "rippe", "borst", "longen", "bryst", "brost"),
    *("klatka", "klatki", "pluc", "hrudn", "plic", "mellkas", "keuhko", "gogus", "akciger"),
    *("груд", "легк", "леген", "огк", "ребр", "θωρακ", "πνευμ"),
    *("paru", "nguc", "phoi"),
)
# Words in scripts without blanks between words, or with articles in front.
_SUBSTRINGS = ("胸", "肺", "흉부", "가슴", "صدر", "חזה", "छाती", "ทรวงอก")
_CHEST = re.compile(rf"\b(?:{'|'.join(_STEMS)})|t\W?\w{{0,2}}\W?rax|chest|{'|'.join(_SUBSTRINGS)}")
# The thoracic spine is not the chest.
_SPINE = re.compile(
    r"(?:\b(?:thora|tora[ck]|brust|dors)\w*\W*)?"
    r"(?:\w*wirbel\w*|\w*spine|column\w*|colonne|rachis|vertebr\w*|позвон\w*)"
    r"(?:\W*(?:thora|tora[ck]|dors)\w*)?"
)
_UNSPECIFIED = frozenset(
    (
        *("unknown", "unk", "other", "default", "na", "none", "null", "any", "misc", "general"),
        *("notspecified", "unspecified", "undefined", "notdefined", "notapplicable", "nil"),
        *(
            "otro",
            "otra",
            "desconocido",
            "inconnu",
            "autre",
            "unbekannt",
            "andere",
            "altro",
            "outro",
        ),
    )
)
_MIN_CUT_LENGTH = 15  # characters from which the last word may be cut off
_MIN_STEM_LENGTH = 3


def is_chest(text: str) -> bool:
    """Return whether a body part is the chest or unspecified.

    Args:
        text: value in the file, in any case and language, with or without accents.
    """
    plain = _normalise(text)
    letters = re.sub(r"\W|_|\d", "", plain)
    if not letters or letters in _UNSPECIFIED:
        return True
    if _CHEST.search(_SPINE.sub(" ", plain)):
        return True
    *_, last = plain.split()
    is_cut = len(text.strip()) >= _MIN_CUT_LENGTH and len(last) >= _MIN_STEM_LENGTH
    return is_cut and any(stem.startswith(last) for stem in _STEMS)


def is_radiograph(text: str) -> bool:
    """Return whether any of the modalities in `text` is projection radiography."""
    modalities = {re.sub(r"[^A-Z]", "", value.upper()) for value in re.split(r"[\\,/]", text)}
    return bool(modalities & (MODALITIES | _MODALITY_SYNONYMS))


def _normalise(text: str) -> str:
    """Return lower case without accents; UTF-8 read as Latin-1 is decoded again."""
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(char for char in decomposed if not unicodedata.combining(char))
    return unicodedata.normalize("NFC", letters)
