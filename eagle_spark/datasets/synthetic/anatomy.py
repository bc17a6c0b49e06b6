"""Anatomical model of the synthetic radiographs: proportions and outlines of one patient.

Coordinates are those of an upright frontal image: x to the right of the image with 0 on the midline
(the patient's right is at negative x), y downwards with 0 at the upper and 1 at the lower border,
both in units of the image's side. An outline is a float64 array (points, 2).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Shape = tuple[Points, float]  # an outline and its brightness, 0-1

SIDES = (-1, 1)  # left and right of the image: the patient's right and left

RIBS = 8

# field -> (minimum, maximum) of a uniform distribution, independent for every patient
RANGES = {
    "half_width": (0.33, 0.44),
    "apex": (0.12, 0.22),
    "base": (0.78, 0.92),
    "medial": (0.050, 0.072),
    "roundness": (1.7, 2.4),
    "dome": (0.10, 0.16),
    "dome_lift": (0.010, 0.035),
    "wall": (0.030, 0.070),
    "heart": (0.42, 0.56),
    "heart_tilt": (0.0, 1.0),
    "rib_drop": (0.17, 0.30),
    "rib_width": (0.0125, 0.0170),
    "bone": (0.7, 1.2),
    "scoliosis": (-0.012, 0.012),
    "arm": (0.0, 1.0),
    "chin": (0.0, 1.0),
    "gas": (0.0, 1.0),
}


@dataclass(frozen=True)
class Anatomy:
    """Anatomy of one patient.

    Attributes:
        half_width: distance from the midline to the widest point of a lung.
        apex, base: y of the lung tips and of the costophrenic angles.
        medial: distance from the midline to the inner border of a lung.
        roundness: exponent of the lateral border; 2 is an ellipse.
        dome, dome_lift: height of the diaphragm, and additional height on the patient's right.
        wall: thickness of the chest wall outside the lungs.
        heart: cardiothoracic ratio. heart_tilt: 0-1, depth of the heart's tip.
        rib_drop: descent of a rib from the spine to its front end. rib_width: half its width.
        bone: contrast of the bones, typically 1.
        scoliosis: largest offset of the spine from the midline.
        arm, chin, gas: 0-1, position of the arms, of the chin, size of the stomach's gas bubble.
        texture: seed of the patient's random structures (vessels, opacities).
    """

    half_width: float
    apex: float
    base: float
    medial: float
    roundness: float
    dome: float
    dome_lift: float
    wall: float
    heart: float
    heart_tilt: float
    rib_drop: float
    rib_width: float
    bone: float
    scoliosis: float
    arm: float
    chin: float
    gas: float
    texture: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Anatomy:
        """Return the anatomy of a random patient."""
        names = [field.name for field in fields(cls) if field.name != "texture"]
        values = {name: float(rng.uniform(*RANGES[name])) for name in names}
        return cls(**values, texture=int(rng.integers(2**31)))

    def lateral(self, y: Points) -> Points:
        """Return the distance from the midline to the outer border of a lung at height `y`."""
        height = np.clip((self.base - y) / (self.base - self.apex), 0.0, 1.0)
        reach = (1.0 - height**self.roundness) ** (1.0 / 2.0)
        return self.medial + 0.03 + (self.half_width - self.medial - 0.03) * reach

    def diaphragm(self, side: int, x: Points) -> Points:
        """Return y of the diaphragm at the distances `x` from the midline, on `side` (-1 or 1)."""
        along = (x - self.medial) / (self.half_width - self.medial)
        inner = 1.0 - 0.22 * np.clip((0.4 - along) / 0.4, 0.0, 1.0) ** 2
        outer = np.clip((along - 0.4) / 0.6, 0.0, 1.0) ** 2.2
        lift = self.dome_lift if side < 0 else 0.0
        return self.base - self.dome * (inner - outer) - lift * (1.0 - outer)

    def lung(self, side: int) -> Points:
        """Return the outline of a lung field, including the part behind the heart."""
        down = self.apex + (self.base - self.apex) * np.linspace(0.0, 1.0, 40) ** 1.6
        scallops = 0.002 * np.sin(2.0 * np.pi * RIBS * (down - self.apex) / (self.base - self.apex))
        outer = np.stack([self.lateral(down) + scallops, down], axis=1)
        inwards = np.linspace(self.half_width, self.medial, 24)
        floor = np.stack([inwards, self.diaphragm(side, inwards)], axis=1)
        up = np.linspace(floor[-1, 1], self.apex, 24)
        inner_x = self.medial + 0.028 * np.exp(-(up - self.apex) / 0.025)
        inner = np.stack([inner_x, up], axis=1)
        return _mirror_to_side(np.concatenate([outer, floor, inner]), side)

    def spine(self, y: Points) -> Points:
        """Return x of the spine at height `y`."""
        return self.scoliosis * np.sin(2.0 * np.pi * y)

    def rib(self, side: int, number: int) -> Points:
        """Return the centre line of a rib from the spine to the front, (48, 2).

        A rib is a tilted half ring: in frontal projection, x follows the sine of the angle from the
        spine and y its cosine, so the posterior part is flat and the anterior part is steep.
        """
        angle = np.linspace(0.04, 0.76, 48) * np.pi
        spacing = (self.base - self.apex - 0.02) / RIBS
        root = self.apex - 0.035 + spacing * number
        drop = self.rib_drop * (0.45 + 0.55 * min(1.0, number / 4.0))
        y = root + drop * (1.0 - np.cos(angle)) / 2.0
        reach = float(self.lateral(np.array([root + drop / 2.0]))[0]) + 0.008
        reach = max(reach, 0.42 * self.half_width)
        return _mirror_to_side(np.stack([reach * np.sin(angle), y], axis=1), side)

    def clavicle(self, side: int) -> Points:
        """Return the centre line of a clavicle, (20, 2)."""
        along = np.linspace(0.0, 1.0, 20)
        x = 0.035 + (self.half_width - 0.02) * along
        y = self.apex + 0.055 - 0.075 * along + 0.016 * np.sin(2.0 * np.pi * along)
        return _mirror_to_side(np.stack([x, y], axis=1), side)

    def heart_outline(self) -> Points:
        """Return the outline of heart and great vessels; the tip is on the patient's left."""
        right = 0.39 * self.heart * 2.0 * self.half_width
        left = 0.61 * self.heart * 2.0 * self.half_width
        floor = self.base - self.dome + 0.05
        tip = floor - 0.055 + 0.03 * self.heart_tilt
        knob = self.apex + 0.17
        waist = knob + 0.45 * (floor - knob)
        corners = [
            (-0.045, self.apex - 0.06),
            (-0.052, knob),
            (-0.058, waist - 0.03),
            (-right, waist + 0.09),
            (-right, floor - 0.04),
            (-0.5 * right, floor + 0.02),
            (0.6 * left, floor + 0.04),
            (1.04 * left, tip + 0.03),
            (0.98 * left, tip - 0.09),
            (0.55 * left, waist),
            (0.062, knob + 0.075),
            (0.108, knob + 0.02),
            (0.100, knob - 0.045),
            (0.050, knob - 0.09),
            (0.045, self.apex - 0.06),
        ]
        return round_corners(np.array(corners))

    def torso(self, side: int) -> Points:
        """Return the outline of half of the trunk with neck and shoulder."""
        shoulder = self.apex + 0.02
        flank = self.half_width + self.wall
        corners = [
            (-0.02, -0.4),
            (0.12, -0.4),
            (0.11, self.apex - 0.13),
            (0.17, self.apex - 0.075),
            (0.75 * flank, shoulder - 0.070),
            (flank + 0.04, shoulder - 0.03),
            (flank + 0.05, shoulder + 0.10),
            (flank - 0.01, shoulder + 0.32),
            (flank + 0.004, self.base - 0.10),
            (flank - 0.008, 1.4),
            (-0.02, 1.4),
        ]
        return _mirror_to_side(round_corners(np.array(corners)), side)

    def arm_outline(self, side: int) -> Points:
        """Return the outline of an upper arm; `arm` sets its distance from the trunk."""
        shoulder = (self.half_width + self.wall + 0.02, self.apex + 0.04)
        away = 0.05 + 0.30 * self.arm
        elbow = (shoulder[0] + away, shoulder[1] + 0.8)
        return _mirror_to_side(ribbon(np.array([shoulder, elbow]), np.array([0.085, 0.065])), side)


def ellipse(centre: tuple[float, float], a: float, b: float, tilt: float = 0.0) -> Points:
    """Return an ellipse with half axes `a` and `b`, rotated by `tilt` radians from x to y."""
    angle = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
    x, y = a * np.cos(angle), b * np.sin(angle)
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.stack([centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y], axis=1)


def round_corners(corners: Points) -> Points:
    """Return a closed outline after three iterations of Chaikin's corner cutting."""
    for _ in range(3):
        following = np.roll(corners, -1, axis=0)
        pair = [0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following]
        corners = np.stack(pair, axis=1).reshape(-1, 2)
    return corners


def ribbon(line: Points, half_width: float | Points) -> Points:
    """Return the outline of a band along `line`; `half_width` is one number or one per point."""
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    scale = half_width / np.hypot(along[:, 0], along[:, 1])
    offset = along[:, ::-1] * scale[:, None] * np.array([-1.0, 1.0])
    return np.concatenate([line + offset, (line - offset)[::-1]])


def _mirror_to_side(points: Points, side: int) -> Points:
    mirrored: Points = points * np.array([side, 1.0])
    return mirrored
