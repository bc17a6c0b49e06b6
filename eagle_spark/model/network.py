"""The two-head network: a frozen MobileNetV2 over one grey channel, a class head, a mask decoder.

Built of Keras' own layers only, so that `keras.models.load_model(..., safe_mode=True)` reads it
back. It has two parts, `backbone` and `heads`, which training runs one after the other: what the
backbone says of an image never changes, so it is asked once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eagle_spark.errors import InputError, SettingsError

if TYPE_CHECKING:
    import keras

STRIDE = 32  # the backbone halves the image five times
# Told with everything that was made by the backbone: changes when it is built in another way.
BACKBONE_VERSION = 2
NORMALISATION = (
    "means of 2 x 2 pixels, drawn back to size by bilinear interpolation; x / 127.5 - 1; "
    "inside the network"
)


@dataclass(frozen=True)
class Tap:
    """A thin bottleneck output of MobileNetV2; images have `stride` times its height and width."""

    layer: str
    stride: int
    channels: int

    def shape(self, size: int) -> tuple[int, int, int]:
        """Return (height, width, channels) for images of this size."""
        return size // self.stride, size // self.stride, self.channels


# Deepest first. The numbers in the names are sides at size 224.
TAPS = {
    "f7": Tap("block_16_project_BN", 32, 320),
    "f14": Tap("block_12_project_BN", 16, 96),
    "f28": Tap("block_5_project_BN", 8, 32),
    "f56": Tap("block_2_project_BN", 4, 24),
}
DECODER_CHANNELS = (96, 64, 48, 32)
# What the class head sees: the mean of the last output; mean, deviation and means of the quarters
# of f14; mean and deviation of f28; deviation of f56.
STATISTICS = 1280 + 6 * 96 + 2 * 32 + 24
LABEL_UNITS = 256  # of the class head's hidden layer

# Keras' 0.99 needs hundreds of steps before inference matches training; a short run has fewer.
MOMENTUM = 0.9


def build_network(
    classes: Sequence[str], size: int, *, weights: Path | None, seed: int
) -> keras.Model:
    """Build the whole network; the same arguments give the same weights.

    Input `pixels`: float32 `(n, size, size, 1)`, grey, 0..255. Outputs, by name: `label` float32
    `(n, len(classes))`, probabilities in the order of `classes`; `mask` float32
    `(n, size, size, 1)`, the probability of lung; `statistics` float32 `(n, STATISTICS)`, what the
    class head sees. Sets Keras' global random seed.

    Args:
        weights: HDF5 file of MobileNetV2 without top, or None for a random start.

    Raises:
        SettingsError: when `size` is not a multiple of 32, or there are fewer than two classes.
        InputError: when the weights do not fit.
    """
    import keras

    backbone = build_backbone(size, weights=weights, seed=seed)
    heads = build_heads(classes, size, seed)
    pixels = keras.Input((size, size, 1), name="pixels")
    features = backbone(pixels, training=False)
    outputs = {**heads(features), "statistics": features["statistics"]}
    return keras.Model(pixels, outputs, name="eagle")


def build_backbone(size: int, *, weights: Path | None, seed: int) -> keras.Model:
    """Build pixels -> dict of the `TAPS` and `statistics` `(n, STATISTICS)`; frozen.

    It sees the image at half its resolution. The finest detail is what archives differ in most
    (scanner, compression, what they were scaled by): trained on one and asked about the other, the
    class head is right more often without it, and no worse at home.

    Arguments and errors are those of `build_network`.
    """
    import keras

    if size < STRIDE or size % STRIDE:
        raise SettingsError(f"image size must be a multiple of {STRIDE}, got {size}")
    pixels = keras.Input((size, size, 1), name="pixels")
    halved = keras.layers.AveragePooling2D(2, name="halved")(pixels)
    smooth = keras.layers.UpSampling2D(2, interpolation="bilinear", name="smooth")(halved)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaled")(smooth)
    grey = keras.applications.MobileNetV2(
        input_tensor=scaled, input_shape=(size, size, 1), include_top=False, weights=None
    )
    if weights is None:
        _draw_he(grey, seed)
    else:
        _load_summed(grey, size, weights)
    features = {name: grey.get_layer(tap.layer).output for name, tap in TAPS.items()}
    features["statistics"] = _statistics(grey.output, features)
    backbone = keras.Model(pixels, features, name="backbone")
    backbone.trainable = False
    return backbone


def _statistics(last: Any, taps: dict[str, Any]) -> Any:
    from keras import layers, ops

    plane = (1, 2)
    half = taps["f14"].shape[1] // 2
    quarters = layers.AveragePooling2D(half, name="quarters")(taps["f14"])
    parts = [
        layers.GlobalAveragePooling2D(name="pooled")(last),
        ops.mean(taps["f14"], axis=plane),
        ops.std(taps["f14"], axis=plane),
        layers.Flatten(name="quarter_means")(quarters),
        ops.mean(taps["f28"], axis=plane),
        ops.std(taps["f28"], axis=plane),
        ops.std(taps["f56"], axis=plane),
    ]
    return layers.Concatenate(name="statistics")(parts)


def _draw_he(grey: keras.Model, seed: int) -> None:
    """Draw all kernels from N(0, 2 / fan-in) (He et al. 2015, arXiv:1502.01852).

    Keras' own start counts all channels into the fan-in of a depthwise kernel; as the frozen batch
    norms do not scale anything, images then vanish on their way (features of about 1e-12).
    """
    import keras

    draw = np.random.default_rng(seed)
    for layer in grey.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            shape = layer.kernel.shape  # height, width, channels in, kernels (per channel)
            own = isinstance(layer, keras.layers.DepthwiseConv2D)
            fan_in = math.prod(shape[:2] if own else shape[:3])
            layer.set_weights([draw.normal(0.0, math.sqrt(2 / fan_in), shape)])


def _load_summed(grey: keras.Model, size: int, weights: Path) -> None:
    """Load colour weights; one grey channel through the summed kernel equals it three times."""
    import keras

    colour = keras.applications.MobileNetV2(
        input_shape=(size, size, 3), include_top=False, weights=None
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # what does not fit may only be skipped
            colour.load_weights(weights)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise InputError(
            f"--weights {weights}: not MobileNetV2 weights (alpha 1.0, no top): {error}"
        ) from error
    first, *others = colour.get_weights()
    grey.set_weights([first.sum(axis=2, keepdims=True), *others])


def build_heads(
    classes: Sequence[str],
    size: int,
    seed: int,
    normalisation: Callable[..., Any] | None = None,
) -> keras.Model:
    """Build dict of features, as the backbone gives them -> dict of `label` and `mask`.

    Args:
        normalisation: makes another layer with the weights of `keras.layers.BatchNormalization`.

    Raises:
        SettingsError: when there are fewer than two classes.
    """
    import keras

    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise SettingsError(f"at least two different classes are needed, got {list(classes)}")
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inputs = {name: keras.Input(tap.shape(size), name=name) for name, tap in TAPS.items()}
    statistics = keras.Input((STATISTICS,), name="statistics")
    units = layers.Dense(LABEL_UNITS, activation="relu", name="label_units")(statistics)
    label = layers.Dense(
        len(classes), activation="softmax", kernel_initializer="zeros", name="label"
    )(units)

    normalisation = normalisation or layers.BatchNormalization

    deepest, *skips = TAPS
    first, *channels = DECODER_CHANNELS
    x = layers.Conv2D(first, 1, name=f"mask_{deepest}")(inputs[deepest])
    for skip, width in zip(skips, channels, strict=True):
        x = layers.Conv2D(width, 1, name=f"mask_{skip}_reduce")(x)
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"mask_{skip}_up")(x)
        projected = layers.Conv2D(width, 1, name=f"mask_{skip}_skip")(inputs[skip])
        x = layers.Add(name=f"mask_{skip}_add")([x, projected])
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"mask_{skip}_conv")(x)
        x = normalisation(momentum=MOMENTUM, name=f"mask_{skip}_norm")(x)
        x = layers.ReLU(name=f"mask_{skip}_relu")(x)
    x = layers.Conv2D(1, 1, name="mask_logit")(x)
    x = layers.UpSampling2D(4, interpolation="bilinear", name="mask_up")(x)
    mask = layers.Activation("sigmoid", name="mask")(x)

    features = {**inputs, "statistics": statistics}
    return keras.Model(features, {"label": label, "mask": mask}, name="heads")
