"""Free text in `BodyPartExamined` and `Modality`: whether it names a chest, and an X-ray.

DICOM has terms for both (PS3.16 Annex L, PS3.3 C.7.3.1.1.1). What consoles send is typed by people:
in the language of the clinic, with accents that a wrong character set has damaged, cut off after
the 16 characters of the value representation CS.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress

MODALITIES = frozenset(("CR", "DR", "DX", "RG"))
_OTHER_SPELLINGS = frozenset(("RX", "XR", "XRAY"))

# How words for chest, lungs and ribs begin, without accents.
_STEMS = (
    *("chest", "chst", "cxr", "thora", "torac", "toraks", "thx", "lung", "pulm", "rib"),
    *("pecho", "peito", "petto", "costill", "costela", "costol", "polmon"),
    *("poitrine", "poumon", "brust", "rippe", "borst", "longen", "bryst", "brost"),
    *("klatka", "klatki", "pluc", "hrudn", "plic", "mellkas", "keuhko", "gogus", "akciger"),
    *("груд", "легк", "леген", "огк", "ребр", "θωρακ", "πνευμ"),
    *("paru", "nguc", "phoi"),
)
# Scripts that write no blanks between words, or put articles in front.
_SIGNS = ("胸", "肺", "흉부", "가슴", "صدر", "חזה", "छाती", "ทรวงอก")
_CHEST = re.compile(rf"\b(?:{'|'.join(_STEMS)})|t\W?\w{{0,2}}\W?rax|chest|{'|'.join(_SIGNS)}")
# The spine of the chest is not the chest.
_SPINE = re.compile(
    r"(?:\b(?:thora|tora[ck]|brust|dors)\w*\W*)?"
    r"(?:\w*wirbel\w*|\w*spine|column\w*|colonne|rachis|vertebr\w*|позвон\w*)"
    r"(?:\W*(?:thora|tora[ck]|dors)\w*)?"
)
_NOT_TOLD = frozenset(
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
_CUT_AT = 15  # characters from which the last word may have lost its end
_MIN_LETTERS = 3


def is_chest(text: str) -> bool:
    """Return whether a body part is the chest, or does not tell which part it is.

    Args:
        text: as it stands in the file, whatever the case, language and accents.
    """
    plain = _folded(text)
    letters = re.sub(r"\W|_|\d", "", plain)
    if not letters or letters in _NOT_TOLD:
        return True
    if _CHEST.search(_SPINE.sub(" ", plain)):
        return True
    *_, last = plain.split()
    cut = len(text.strip()) >= _CUT_AT and len(last) >= _MIN_LETTERS
    return cut and any(stem.startswith(last) for stem in _STEMS)


def is_radiograph(text: str) -> bool:
    """Return whether a modality is an X-ray on a plate or detector; of several, one is enough."""
    found = {re.sub(r"[^A-Z]", "", one.upper()) for one in re.split(r"[\\,/]", text)}
    return bool(found & (MODALITIES | _OTHER_SPELLINGS))


def _folded(text: str) -> str:
    """Return lower case without accents; UTF-8 that was read as Latin-1 is read anew."""
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    parts = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(part for part in parts if not unicodedata.combining(part))
    return unicodedata.normalize("NFC", letters)
