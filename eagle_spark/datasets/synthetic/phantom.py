"""Render synthetic chest radiographs of an `Anatomy`, healthy or with opacities.

Layers of attenuation are added up as in radiography (body, bones, heart, lungs as missing tissue,
opacities as less air), then a film curve and a noisy exposure turn them into pixels.
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
    round_corners,
)
from eagle_spark.datasets.synthetic.opacity import Disease, render_opacity, vessel_shapes
from eagle_spark.datasets.synthetic.projection import (
    IMAGE_SIDE,
    Layer,
    View,
    blur_layer,
    smooth_noise,
)

MASK_SIDE = 256


@dataclass(frozen=True)
class RenderedRadiograph:
    """One image: `pixels` uint8 (299, 299) and the lung fields `mask` bool (256, 256)."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def render_radiograph(
    anatomy: Anatomy, disease: Disease | None, rng: np.random.Generator
) -> RenderedRadiograph:
    """Render one image of a patient.

    Args:
        anatomy: the patient; equal in all images of a patient.
        disease: "ground glass", "interstitial" or None.
        rng: generator of pose, exposure and noise of this image.
    """
    view = View.draw(rng)
    lungs = view.paint([(anatomy.lung(side), 1.0) for side in SIDES], 0.4)
    severity = float(rng.uniform(0.85, 1.15))
    attenuation = _attenuation(anatomy, view, lungs, disease, severity)
    image = Image.fromarray(_expose(attenuation, rng))
    _draw_side_marker(image, np.random.default_rng([anatomy.texture, 2]))
    lung_field = Image.fromarray(lungs).resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BILINEAR)
    return RenderedRadiograph(np.array(image), np.asarray(lung_field) >= 0.5)


def _attenuation(
    anatomy: Anatomy, view: View, lungs: Layer, disease: Disease | None, severity: float
) -> Layer:
    """Return the attenuation of the rays, 0 in air and about 1 in the spine."""
    texture = np.random.default_rng([anatomy.texture, 1])
    air = blur_layer(lungs, 1.2) * (0.50 + 0.50 * blur_layer(lungs, 9.0))
    heart = view.paint([(anatomy.heart_outline(), 1.0)], 2.5)
    thick_heart = blur_layer(heart, 10.0)
    vessels = view.paint(vessel_shapes(anatomy, texture), 1.1)
    displaced = render_opacity(anatomy, view, disease, severity, texture)
    air *= (1.0 - 0.72 * heart * (0.55 + 0.45 * thick_heart)) * (1.0 - displaced)
    air *= 1.0 + 0.10 * smooth_noise(texture, 6) + 0.05 * smooth_noise(texture, 40)

    bodies = [(anatomy.torso(side), 1.0) for side in SIDES]
    arms = [(anatomy.arm_outline(side), 1.0) for side in SIDES]
    body = view.paint(bodies, 2.0)
    trunk = view.paint(_trunk(anatomy), 9.0)
    tissue = 0.20 * body + 0.16 * blur_layer(body, 14.0) + 0.30 * view.paint(arms, 4.0)
    bones = anatomy.bone * (
        0.17 * view.paint(_bones(anatomy, front=False), 0.8)
        + 0.05 * view.paint(_bones(anatomy, front=True), 1.2)
        + 0.13 * view.paint(_spine(anatomy), 1.1)
    )
    hollow = view.paint(_hollows(anatomy), 3.5)
    attenuation = tissue + 0.50 * trunk - 0.60 * air + bones - 0.16 * hollow
    attenuation += 0.08 * heart * thick_heart + 0.075 * vessels * air
    attenuation += 0.02 * smooth_noise(texture, 5) * body
    clipped: Layer = np.maximum(attenuation, 0.0)
    return clipped


def _expose(attenuation: Layer, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the pixels after film curve, window, gradient, quantum noise and scanner noise."""
    curve = 1.0 - np.exp(-rng.uniform(1.1, 1.9) * attenuation)
    low, high = np.percentile(curve[::4, ::4], [2.0, 99.0])
    density = np.clip((curve - low) / (high - low), 0.0, 1.2) ** rng.uniform(0.85, 1.25)
    tilt = np.linspace(-1.0, 1.0, IMAGE_SIDE, dtype=np.float32)
    density *= 1.0 + rng.normal(0.0, 0.03) * tilt[:, None] + rng.normal(0.0, 0.03) * tilt[None, :]
    density = rng.uniform(0.01, 0.07) + rng.uniform(0.72, 0.90) * density
    grain = rng.standard_normal(density.shape, dtype=np.float32)
    smooth = smooth_noise(rng, 150)
    density += rng.uniform(0.005, 0.014) * (0.6 + 0.8 * density) * (0.6 * grain + smooth)
    pixels: NDArray[np.uint8] = np.clip(255.0 * density + 0.5, 0.0, 255.0).astype(np.uint8)
    return pixels


def _bones(anatomy: Anatomy, *, front: bool) -> list[Shape]:
    """Return the front or back of the ribs; the back includes clavicles, scapulae and humeri."""
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
            shapes.insert(0, (round_corners(np.array(blade) * scale + [0.0, anatomy.apex]), 0.30))
            shapes.append((ellipse(shoulder, 0.05, 0.055), 0.75))
            line = anatomy.clavicle(side)
            shapes += [(ribbon(line, 0.014), 1.0), (ribbon(line, 0.008), 0.75)]
    return shapes


def _spine(anatomy: Anatomy) -> list[Shape]:
    """Return the vertebral column with its brighter end plates."""
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
    """Return the air outside the lungs: trachea and gastric bubble."""
    line = np.array([(0.0, -0.2), (-0.004, anatomy.apex), (-0.008, anatomy.apex + 0.22)])
    top = float(anatomy.diaphragm(1, np.array([0.18]))[0])
    size = 0.10 * max(0.0, anatomy.gas - 0.3)
    bubble = ellipse((0.20, top + 0.035 + size), size, 0.7 * size)
    return [(ribbon(line, 0.022), 0.9), (bubble, 1.0)]


def _draw_side_marker(image: Image.Image, rng: np.random.Generator) -> None:
    """Draw the side marker: R beside the patient's right (image left), L on the other side."""
    letter = rng.choice(["R", "L", ""], p=[0.6, 0.2, 0.2])
    font = ImageFont.load_default(size=float(rng.integers(12, 22)))
    x = rng.uniform(0.02, 0.08) if letter == "R" else rng.uniform(0.88, 0.93)
    position = (x * IMAGE_SIDE, rng.uniform(0.03, 0.35) * IMAGE_SIDE)
    ImageDraw.Draw(image).text(position, letter, fill=int(rng.integers(190, 250)), font=font)
