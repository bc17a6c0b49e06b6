from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eagle_spark.errors import InputError, SettingsError
from eagle_spark.model.keras_file import check_keras_file, read_weights_digest

pytestmark = [
    pytest.mark.train,
    # TensorFlow's tensors lack numpy's `copy` argument.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

CLASSES = ("COVID", "Normal", "Viral Pneumonia")


@pytest.fixture(scope="module")
def network() -> Any:
    from eagle_spark.model.network import build_network

    return build_network(CLASSES, 64, weights=None, seed=1)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (10, 64, 64), np.uint8)


def test_outputs_have_the_promised_shapes_and_ranges(network: Any, pixels: Any) -> None:
    outputs = network(pixels[..., None].astype("float32"))
    label, mask = outputs["label"].numpy(), outputs["mask"].numpy()
    assert label.shape == (10, 3)
    assert mask.shape == (10, 64, 64, 1)
    np.testing.assert_allclose(label.sum(axis=1), 1, rtol=1e-5)
    assert 0 <= mask.min() <= mask.max() <= 1


def test_the_same_seed_builds_the_same_weights(network: Any) -> None:
    from eagle_spark.model.network import build_network

    again = build_network(CLASSES, 64, weights=None, seed=1)
    other = build_network(CLASSES, 64, weights=None, seed=2)
    pairs = list(zip(network.get_weights(), again.get_weights(), strict=True))
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert not all(
        np.array_equal(a, b)
        for a, b in zip(network.get_weights(), other.get_weights(), strict=True)
    )


def test_a_random_backbone_distinguishes_images(network: Any, pixels: Any) -> None:
    outputs = network.get_layer("backbone")(pixels[..., None].astype("float32"))
    for name, value in outputs.items():
        features = value.numpy()
        size = np.sqrt(np.mean(features**2))
        assert 0.1 < size < 10, name
        assert np.abs(features[0] - features[1]).max() > 0.1 * size, name


def test_the_backbone_and_its_statistics_are_frozen(network: Any, pixels: Any) -> None:
    backbone = network.get_layer("backbone")
    assert not backbone.trainable_variables
    before = [w.copy() for w in backbone.get_weights()]
    network(pixels[..., None].astype("float32"), training=True)
    after = backbone.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def halved(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Half the detail, by Pillow."""
    small = Image.fromarray(image.astype("float32")).resize((32, 32), Image.Resampling.BOX)
    return np.asarray(small.resize((64, 64), Image.Resampling.BILINEAR))


def test_one_grey_channel_at_half_the_detail_equals_three_through_the_colour_weights(
    tmp_path: Path, pixels: Any
) -> None:
    import keras

    from eagle_spark.model.network import build_network

    keras.utils.set_random_seed(3)
    colour = keras.applications.MobileNetV2(
        input_shape=(64, 64, 3), include_top=False, weights=None, pooling="avg"
    )
    colour.save_weights(tmp_path / "colour.weights.h5")
    ours = build_network(CLASSES, 64, weights=tmp_path / "colour.weights.h5", seed=1)
    pooled = slice(0, 1280)  # the first of the statistics
    smooth = np.stack([halved(image) for image in pixels])
    scaled = np.repeat(smooth[..., None], 3, axis=-1) / 127.5 - 1
    statistics = ours.get_layer("backbone")(pixels[..., None].astype("float32"))["statistics"]
    np.testing.assert_allclose(
        statistics.numpy()[:, pooled], colour(scaled, training=False).numpy(), atol=1e-5
    )


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    import keras

    from eagle_spark.model.network import build_network

    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(InputError, match=r"other\.weights\.h5"):
        build_network(CLASSES, 64, weights=tmp_path / "other.weights.h5", seed=1)
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(InputError, match=r"text\.h5"):
        build_network(CLASSES, 64, weights=tmp_path / "text.h5", seed=1)


@pytest.mark.parametrize(("classes", "size"), [(CLASSES, 100), (CLASSES, 0), (("one",), 64)])
def test_impossible_sizes_and_classes_are_refused(classes: tuple[str, ...], size: int) -> None:
    from eagle_spark.model.network import build_network

    with pytest.raises(SettingsError):
        build_network(classes, size, weights=None, seed=1)


def test_a_saved_network_is_plain_and_its_digest_is_independent_of_the_time(
    network: Any, pixels: Any, tmp_path: Path
) -> None:
    import keras

    network.save(tmp_path / "a.keras")
    network.save(tmp_path / "b.keras")
    check_keras_file(tmp_path / "a.keras")
    assert read_weights_digest(tmp_path / "a.keras") == read_weights_digest(tmp_path / "b.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras", compile=False, safe_mode=True)
    images = pixels[..., None].astype("float32")
    assert np.array_equal(loaded(images)["mask"], network(images)["mask"])


def test_losses_are_zero_for_the_truth_and_dice_matches_the_metric() -> None:
    from eagle_spark.metrics.scores import dice
    from eagle_spark.model import losses

    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (4, 8, 8, 1)).astype("float32")
    predicted = rng.random((4, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(losses.mask_loss(masks, masks), 0, atol=1e-5)
    assert (losses.mask_loss(masks, predicted).numpy() > 0.5).all()
    expected = dice(masks[..., 0] > 0, predicted[..., 0] >= 0.5)
    np.testing.assert_allclose(losses.dice(masks, predicted, 0.5), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def exported(network: Any, pixels: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from eagle_spark.model.bundle import seal
    from eagle_spark.model.engines import OPENVINO_FILE, KerasEngine
    from eagle_spark.model.export import save_openvino, to_openvino
    from eagle_spark.model.gate import run_gate, write_golden
    from eagle_spark.model.metadata import InputContract, ModelMetadata
    from eagle_spark.model.review import ReviewThresholds

    folder = tmp_path_factory.mktemp("model")
    network.save(folder / "model.keras")
    save_openvino(to_openvino(network), folder / OPENVINO_FILE)
    reference = KerasEngine(folder, 1)
    expected = write_golden(folder, pixels, reference)
    metadata = ModelMetadata(
        classes=CLASSES,
        input=InputContract(size=64),
        mask_threshold=0.5,
        review=ReviewThresholds(confidence=0.8, novelty={}, mask={}),
        engines=run_gate(folder, pixels, expected, 0.5, 1, reference),
    )
    return seal(folder, metadata)


def test_both_engines_pass_the_gate_in_float32(exported: Any) -> None:
    assert {name: result.passed for name, result in exported.metadata.engines.items()} == {
        "openvino": True,
        "keras": True,
    }
    assert sorted(path.name for path in (exported.path / "openvino").iterdir()) == [
        "model.bin",
        "model.xml",
    ]
    # float32 weights take four bytes each.
    assert (exported.path / "openvino/model.bin").stat().st_size > 4 * 2_300_000


@pytest.mark.parametrize("name", ["openvino", "keras"])
def test_a_row_does_not_depend_on_its_batch(exported: Any, pixels: Any, name: str) -> None:
    from eagle_spark.model.predictor import ModelRef

    model = ModelRef(str(exported.path), exported.metadata.model_id, name, 1).load()
    many = np.resize(pixels, (64, *pixels.shape[1:]))
    labels, masks, statistics = model.compute_outputs(many)
    assert labels.dtype == masks.dtype == np.float32
    assert masks.shape == (64, 64, 64)
    for size in (1, 7, 32):
        label, mask, few_statistics = model.compute_outputs(many[:size])
        np.testing.assert_allclose(label, labels[:size], atol=1e-5)
        np.testing.assert_allclose(mask, masks[:size], atol=1e-5)
        np.testing.assert_allclose(few_statistics, statistics[:size], atol=1e-4)


def test_an_exported_engine_loads_no_tensorflow(exported: Any) -> None:
    program = (
        "import sys, numpy as np\n"
        "from eagle_spark.model.predictor import load_model\n"
        f"model = load_model({str(exported.path)!r}, 'auto', 1)\n"
        "model.compute_outputs(np.zeros((2, 64, 64), np.uint8))\n"
        "assert model.engine == 'openvino'\n"
        "assert not {'tensorflow', 'keras', 'pyspark'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
