"""Which texts name a chest, and which an X-ray."""

from __future__ import annotations

import pytest

from eagle_spark.imaging.dicom.body_part import is_chest, is_radiograph

CHESTS = (
    *("CHEST", "Chest", "CHESTABDOMEN", "PORT CHEST", "2- TORAX", "THORAX", "THX", "CHST", "CXR"),
    *("TÓRAX", "TORACE", "TORACI", "PECHO", "PEITO", "PULMON", "PULMONES", "PULMÃO", "COSTILLAS"),
    *("POITRINE", "POUMONS", "BRUSTKORB", "LUNGE", "RIPPEN", "RIBS", "GÖĞÜS", "KLATKA PIERSIOWA"),
    *("ГРУДНАЯ КЛЕТКА", "Органы грудной", "ОГК", "胸部", "흉부", "الصدر"),
)
DAMAGED = ("T?RAX", "T RAX", "T\ufffdRAX", "TàRAX", "TÓRAX".encode().decode("latin-1"))
CUT = ("AP PORTABLE CHE", "RADIOGRAFIA TOR", "RX ANTERIOR PUL")
UNSPECIFIC = (
    "",
    " ",
    "UNKNOWN",
    "unk",
    "OTHER",
    "DEFAULT",
    "N/A",
    "NONE",
    "-",
    "*",
    "0",
    "DESCONOCIDO",
)
OTHERS = (
    *("SKULL", "ABDOMEN", "HAND", "KNEE", "THUMB", "MANO", "PIERNA", "CRÁNEO", "PELVIS", "HIP"),
    *("CSPINE", "TSPINE", "THORACIC SPINE", "SPINE THORACIC", "COLUMNA TORACICA", "BWS"),
    *("BRUSTWIRBELSÄULE", "BREAST", "SCHÄDEL", "ЧЕРЕП", "手", "TIBIA", "FOREARM", "EXTREMITY"),
    *("THE", "LEFT FOREARM LAT", "RIGHT LOWER LEG "),
)


@pytest.mark.parametrize("text", [*CHESTS, *DAMAGED, *CUT, *UNSPECIFIC])
def test_every_spelling_of_chest_and_unspecific_parts_are_accepted(text: str) -> None:
    assert is_chest(text)


@pytest.mark.parametrize("text", OTHERS)
def test_other_body_parts_are_rejected(text: str) -> None:
    assert not is_chest(text)


@pytest.mark.parametrize("text", ["CR", "cr", "DX", "DR ", "RG", "XR", "X-RAY", "RX", "CR\\DX"])
def test_x_rays(text: str) -> None:
    assert is_radiograph(text)


@pytest.mark.parametrize("text", ["CT", "US", "MR", "PX", "XC", "DG", "SR", "SEG", "OT", "CTCR"])
def test_other_modalities(text: str) -> None:
    assert not is_radiograph(text)
