"""Synthetic chest radiographs: an `Anatomy` seen through X-rays, healthy or with opacities.

The film is built as radiographs come about: layers of attenuation are added up (body, bones, heart,
lungs as missing tissue, opacities as less air), then darkened by a film curve and a noisy exposure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from eagle_spark.datasets.synthetic.anatomy import (
    RIBS,
    SIDES,
    Anatomy,
    Points,
    Shape,
    ellipse,
    ribbon,
    rounded,
)
from eagle_spark.datasets.synthetic.opacity import Disease, opacity, vessel_shapes
from eagle_spark.datasets.synthetic.projection import IMAGE_SIDE, Layer, View, noise, soften

MASK_SIDE = 256


@dataclass(frozen=True)
class Radiograph:
    """One film: `pixels` uint8 `(299, 299)` and the lung fields `mask` bool `(256, 256)`."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def take_film(anatomy: Anatomy, disease: Disease | None, rng: np.random.Generator) -> Radiograph:
    """Return one film of a patient.

    Args:
        anatomy: the patient; the same patient gives the same anatomy in every film.
        disease: "ground glass", "interstitial" or None.
        rng: pose, exposure and noise of this film.
    """
    view = View.draw(rng)
    lungs = view.paint([(anatomy.lung(side), 1.0) for side in SIDES], 0.4)
    severity = float(rng.uniform(0.85, 1.15))
    attenuation = _attenuation(anatomy, view, lungs, disease, severity)
    film = Image.fromarray(_expose(attenuation, rng))
    _mark(film, np.random.default_rng([anatomy.texture, 2]))
    field = Image.fromarray(lungs).resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BILINEAR)
    return Radiograph(np.array(film), np.asarray(field) >= 0.5)


def _attenuation(
    anatomy: Anatomy, view: View, lungs: Layer, disease: Disease | None, severity: float
) -> Layer:
    """Return what the rays meet on their way, 0 in air and about 1 in the spine."""
    texture = np.random.default_rng([anatomy.texture, 1])
    air = soften(lungs, 1.2) * (0.50 + 0.50 * soften(lungs, 9.0))
    heart = view.paint([(anatomy.heart_outline(), 1.0)], 2.5)
    thick_heart = soften(heart, 10.0)
    vessels = view.paint(vessel_shapes(anatomy, texture), 1.1)
    taken = opacity(anatomy, view, disease, severity, texture)
    air *= (1.0 - 0.72 * heart * (0.55 + 0.45 * thick_heart)) * (1.0 - taken)
    air *= 1.0 + 0.10 * noise(texture, 6) + 0.05 * noise(texture, 40)

    bodies = [(anatomy.torso(side), 1.0) for side in SIDES]
    arms = [(anatomy.arm_outline(side), 1.0) for side in SIDES]
    body = view.paint(bodies, 2.0)
    trunk = view.paint(_trunk(anatomy), 9.0)
    tissue = 0.20 * body + 0.16 * soften(body, 14.0) + 0.30 * view.paint(arms, 4.0)
    bones = anatomy.bone * (
        0.17 * view.paint(_bones(anatomy, front=False), 0.8)
        + 0.05 * view.paint(_bones(anatomy, front=True), 1.2)
        + 0.13 * view.paint(_spine(anatomy), 1.1)
    )
    hollow = view.paint(_hollows(anatomy), 3.5)
    attenuation = tissue + 0.50 * trunk - 0.60 * air + bones - 0.16 * hollow
    attenuation += 0.08 * heart * thick_heart + 0.075 * vessels * air
    attenuation += 0.02 * noise(texture, 5) * body
    seen: Layer = np.maximum(attenuation, 0.0)
    return seen


def _expose(attenuation: Layer, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the developed film: curve, window, brightness gradient, quantum and scanner noise."""
    curve = 1.0 - np.exp(-rng.uniform(1.1, 1.9) * attenuation)
    low, high = np.percentile(curve[::4, ::4], [2.0, 99.0])
    film = np.clip((curve - low) / (high - low), 0.0, 1.2) ** rng.uniform(0.85, 1.25)
    tilt = np.linspace(-1.0, 1.0, IMAGE_SIDE, dtype=np.float32)
    film *= 1.0 + rng.normal(0.0, 0.03) * tilt[:, None] + rng.normal(0.0, 0.03) * tilt[None, :]
    film = rng.uniform(0.01, 0.07) + rng.uniform(0.72, 0.90) * film
    grain = rng.standard_normal(film.shape, dtype=np.float32)
    smooth = noise(rng, 150)
    film += rng.uniform(0.005, 0.014) * (0.6 + 0.8 * film) * (0.6 * grain + smooth)
    pixels: NDArray[np.uint8] = np.clip(255.0 * film + 0.5, 0.0, 255.0).astype(np.uint8)
    return pixels


def _bones(anatomy: Anatomy, *, front: bool) -> list[Shape]:
    """Return ribs, with the collar bones, shoulder blades and upper arms at the back."""
    shapes: list[Shape] = []
    for side in SIDES:
        for number in range(RIBS):
            line = anatomy.rib(side, number)
            half = line[30:] if front else line[:32]
            width = anatomy.rib_width * (1.15 if front else 1.0)
            shapes += [(ribbon(half, width), 0.85), (ribbon(half, 0.62 * width), 0.60)]
        if not front:
            shoulder = (side * (anatomy.half_width + anatomy.wall), anatomy.apex + 0.04)
            blade = [(0.84, -0.01), (0.74, 0.12), (0.82, 0.34), (0.94, 0.30), (1.14, 0.02)]
            scale = np.array([side * anatomy.half_width, 1.0])
            shapes.insert(0, (rounded(np.array(blade) * scale + [0.0, anatomy.apex]), 0.30))
            shapes.append((ellipse(shoulder, 0.05, 0.055), 0.75))
            line = anatomy.clavicle(side)
            shapes += [(ribbon(line, 0.014), 1.0), (ribbon(line, 0.008), 0.75)]
    return shapes


def _spine(anatomy: Anatomy) -> list[Shape]:
    """Return the column of vertebrae with its brighter end plates."""
    down = np.linspace(-0.3, 1.3, 40)
    shapes: list[Shape] = [(ribbon(np.stack([anatomy.spine(down), down], axis=1), 0.034), 0.55)]
    for y in np.arange(-0.3, 1.3, (anatomy.base - anatomy.apex) / 11.0):
        x = float(anatomy.spine(np.array([y]))[0])
        shapes.append((np.array([x, y]) + _box(0.040, 0.018), 0.80))
        shapes.append((np.array([x, y]) + _box(0.033, 0.012), 0.68))
        shapes.append((ellipse((x, y + 0.008), 0.006, 0.014), 1.0))
    return shapes


def _box(a: float, b: float) -> Points:
    return np.array([(-a, -b), (a, -b), (a, b), (-a, b)])


def _trunk(anatomy: Anatomy) -> list[Shape]:
    """Return the thick middle of the body: rib cage, neck, abdomen and chin."""
    down = np.linspace(anatomy.apex - 0.02, 1.3, 30)
    shapes: list[Shape] = []
    for side in SIDES:
        edge = np.stack([side * (anatomy.lateral(down) + 0.008), down], axis=1)
        inner = np.array([(0.0, 1.3), (0.0, -0.3), (side * 0.06, -0.3)])
        shapes.append((np.concatenate([edge, inner]), 1.0))
    if anatomy.chin > 0.55:
        shapes.append((ellipse((0.0, -0.10 + 0.10 * anatomy.chin), 0.15, 0.10), 1.0))
    return shapes


def _hollows(anatomy: Anatomy) -> list[Shape]:
    """Return air outside the lungs: windpipe, stomach bubble."""
    line = np.array([(0.0, -0.2), (-0.004, anatomy.apex), (-0.008, anatomy.apex + 0.22)])
    top = float(anatomy.diaphragm(1, np.array([0.18]))[0])
    size = 0.10 * max(0.0, anatomy.gas - 0.3)
    bubble = ellipse((0.20, top + 0.035 + size), size, 0.7 * size)
    return [(ribbon(line, 0.022), 0.9), (bubble, 1.0)]


def _mark(film: Image.Image, rng: np.random.Generator) -> None:
    """Stamp the side marker: R beside the patient's right (image left) or L on the other side."""
    letter = rng.choice(["R", "L", ""], p=[0.6, 0.2, 0.2])
    font = ImageFont.load_default(size=float(rng.integers(12, 22)))
    x = rng.uniform(0.02, 0.08) if letter == "R" else rng.uniform(0.88, 0.93)
    place = (x * IMAGE_SIDE, rng.uniform(0.03, 0.35) * IMAGE_SIDE)
    ImageDraw.Draw(film).text(place, letter, fill=int(rng.integers(190, 250)), font=font)
