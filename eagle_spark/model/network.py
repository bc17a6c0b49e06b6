"""The two-head network: a frozen MobileNetV2 over one grey channel, a class head, a mask decoder.

It consists of Keras' own layers only, so that `keras.models.load_model(..., safe_mode=True)` loads
it. Training runs its two parts, `backbone` and `heads`, one after the other: the backbone's
features of an image never change, so they are computed once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eagle_spark.errors import InputError, SettingsError

if TYPE_CHECKING:
    import keras

STRIDE = 32  # the backbone halves the image five times
# Stored with all features; increases when the construction of the backbone changes.
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
# Inputs of the class head: the mean of the last output; mean, standard deviation and means of the
# quarters of f14; mean and standard deviation of f28; standard deviation of f56.
STATISTICS_COUNT = 1280 + 6 * 96 + 2 * 32 + 24
LABEL_UNITS = 256  # of the class head's hidden layer

# Keras' 0.99 needs hundreds of steps before inference matches training; a short run has fewer.
NORM_MOMENTUM = 0.9


def build_network(
    classes: Sequence[str], size: int, *, weights: Path | None, seed: int
) -> keras.Model:
    """Build the whole network; the same arguments give the same weights.

    Input `pixels`: float32 `(n, size, size, 1)`, grey, 0..255. Outputs, by name: `label` float32
    `(n, len(classes))`, probabilities in the order of `classes`; `mask` float32
    `(n, size, size, 1)`, the probability of lung; `statistics` float32 `(n, STATISTICS_COUNT)`, the
    class head's input. Sets Keras' global random seed.

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
    """Build pixels -> dict of the `TAPS` and `statistics` `(n, STATISTICS_COUNT)`; frozen.

    The backbone halves the resolution of the image. Archives differ most in the finest detail
    (scanner, compression, scaling): without it, the class head is more accurate on an archive that
    it was not trained on, and equally accurate on its own.

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
        _initialise_he_normal(grey, seed)
    else:
        _load_colour_weights(grey, size, weights)
    features = {name: grey.get_layer(tap.layer).output for name, tap in TAPS.items()}
    features["statistics"] = _pool_statistics(grey.output, features)
    backbone = keras.Model(pixels, features, name="backbone")
    backbone.trainable = False
    return backbone


def _pool_statistics(
    last: keras.KerasTensor, taps: dict[str, keras.KerasTensor]
) -> keras.KerasTensor:
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


def _initialise_he_normal(grey: keras.Model, seed: int) -> None:
    """Draw all kernels from N(0, 2 / fan-in) (He et al. 2015, arXiv:1502.01852).

    Keras' own initializer counts all channels into the fan-in of a depthwise kernel; as the frozen
    batch norms do not rescale, activations then vanish (features of about 1e-12).
    """
    import keras

    generator = np.random.default_rng(seed)
    for layer in grey.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            shape = layer.kernel.shape  # height, width, channels in, kernels (per channel)
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            fan_in = math.prod(shape[:2] if depthwise else shape[:3])
            layer.set_weights([generator.normal(0.0, math.sqrt(2 / fan_in), shape)])


def _load_colour_weights(grey: keras.Model, size: int, weights: Path) -> None:
    """Load RGB weights into a grey network.

    The first kernel is summed over its channels, which equals the RGB kernel on three equal ones.
    """
    import keras

    colour = keras.applications.MobileNetV2(
        input_shape=(size, size, 3), include_top=False, weights=None
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras may just skip a misfit
            colour.load_weights(weights)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise InputError(
            f"`weights` {weights}: not MobileNetV2 weights (alpha 1.0, no top): {error}"
        ) from error
    first, *others = colour.get_weights()
    grey.set_weights([first.sum(axis=2, keepdims=True), *others])


def build_heads(
    classes: Sequence[str],
    size: int,
    seed: int,
    normalisation_layer: Callable[..., keras.layers.Layer] | None = None,
) -> keras.Model:
    """Build dict of the backbone's features -> dict of `label` and `mask`.

    Args:
        normalisation_layer: replaces `keras.layers.BatchNormalization`; a layer with its arguments
            and weights.

    Raises:
        SettingsError: when there are fewer than two classes.
    """
    import keras

    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise SettingsError(f"at least two different classes are needed, got {list(classes)}")
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inputs = {name: keras.Input(tap.shape(size), name=name) for name, tap in TAPS.items()}
    statistics = keras.Input((STATISTICS_COUNT,), name="statistics")
    units = layers.Dense(
        LABEL_UNITS, activation="relu", kernel_initializer="he_normal", name="label_units"
    )(statistics)
    logits = layers.Dense(len(classes), kernel_initializer="zeros", name="label")(units)
    label = layers.Softmax(name="label_probabilities")(logits)

    normalisation_layer = normalisation_layer or layers.BatchNormalization

    deepest, *skips = TAPS
    first, *channels = DECODER_CHANNELS
    x = layers.Conv2D(first, 1, name=f"mask_{deepest}")(inputs[deepest])
    for skip, width in zip(skips, channels, strict=True):
        x = layers.Conv2D(width, 1, name=f"mask_{skip}_reduce")(x)
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"mask_{skip}_up")(x)
        projected = layers.Conv2D(width, 1, name=f"mask_{skip}_skip")(inputs[skip])
        x = layers.Add(name=f"mask_{skip}_add")([x, projected])
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"mask_{skip}_conv")(x)
        x = normalisation_layer(momentum=NORM_MOMENTUM, name=f"mask_{skip}_norm")(x)
        x = layers.ReLU(name=f"mask_{skip}_relu")(x)
    x = layers.Conv2D(1, 1, name="mask_logit")(x)
    x = layers.UpSampling2D(4, interpolation="bilinear", name="mask_up")(x)
    mask = layers.Activation("sigmoid", name="mask")(x)

    features = {**inputs, "statistics": statistics}
    return keras.Model(features, {"label": label, "mask": mask}, name="heads")
