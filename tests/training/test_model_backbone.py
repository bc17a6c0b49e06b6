"""The exported backbone beside Keras' own, alone and in front of the heads."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eagle_spark.errors import EagleError
from eagle_spark.model.backbone import (
    BackboneEngine,
    compute_backbone_digest,
    pack_backbone,
    unpack_backbone,
)
from eagle_spark.model.export import to_openvino
from eagle_spark.model.network import LABEL_UNITS, STATISTICS_COUNT, TAPS

pytestmark = pytest.mark.train
SIZE = 64
CLASSES = ("A", "B", "C")


@pytest.fixture(scope="module")
def network() -> Any:
    """A network with random heads."""
    from eagle_spark.model.network import build_network

    built = build_network(CLASSES, SIZE, weights=None, seed=2)
    label = built.get_layer("heads").get_layer("label")
    rng = np.random.default_rng(0)
    label.set_weights([rng.normal(0, 0.2, (LABEL_UNITS, 3)), rng.normal(0, 1, 3)])
    return built


@pytest.fixture(scope="module")
def packed(network: Any) -> bytes:
    return pack_backbone(to_openvino(network.get_layer("backbone")))


@pytest.fixture(scope="module")
def engine(packed: bytes) -> BackboneEngine:
    return BackboneEngine(unpack_backbone(packed, compute_backbone_digest(packed)), 1)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (10, SIZE, SIZE), np.uint8)


def test_features_equal_those_of_keras(network: Any, engine: BackboneEngine, pixels: Any) -> None:
    expected = network.get_layer("backbone")(pixels[..., None].astype("float32"))
    features = engine.compute_features(pixels)
    assert features.keys() == expected.keys() == {*TAPS, "statistics"}
    assert features["statistics"].shape == (10, STATISTICS_COUNT)
    for name, tap in TAPS.items():
        assert features[name].shape == (10, *tap.shape(SIZE))
    for name, value in features.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[name].numpy(), atol=1e-3)


def test_the_features_of_an_image_do_not_depend_on_its_batch(
    engine: BackboneEngine, pixels: Any
) -> None:
    whole = engine.compute_features(pixels)
    for name, value in engine.compute_features(pixels[3:4]).items():
        np.testing.assert_allclose(value, whole[name][3:4], atol=1e-4)


def test_features_are_not_overwritten_by_the_next_call(engine: BackboneEngine, pixels: Any) -> None:
    first = engine.compute_features(pixels)
    copies = {name: value.copy() for name, value in first.items()}
    engine.compute_features(255 - pixels)
    assert all(np.array_equal(first[name], value) for name, value in copies.items())


def test_heads_on_features_of_the_engine_equal_the_whole_network(
    network: Any, engine: BackboneEngine, pixels: Any
) -> None:
    """In the precision that training keeps: float16."""
    expected = network(pixels[..., None].astype("float32"))
    features = {
        name: value.astype(np.float16) for name, value in engine.compute_features(pixels).items()
    }
    outputs = network.get_layer("heads")(
        {name: value.astype(np.float32) for name, value in features.items()}
    )
    assert np.ptp(expected["label"].numpy()) > 0.1
    for name in ("label", "mask"):
        np.testing.assert_allclose(outputs[name].numpy(), expected[name].numpy(), atol=5e-3)


def test_the_digest_is_that_of_the_file_and_another_file_is_refused(packed: bytes) -> None:
    digest = hashlib.sha256(packed).hexdigest()
    assert compute_backbone_digest(packed) == digest
    with pytest.raises(EagleError, match=f"the stored backbone {digest} is damaged"):
        unpack_backbone(packed[:-1], digest)


def test_the_engine_loads_no_tensorflow(packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(packed)
    program = (
        "import pathlib, sys, numpy as np\n"
        "from eagle_spark.model.backbone import (\n"
        "    BackboneEngine, compute_backbone_digest, unpack_backbone\n"
        ")\n"
        f"packed = pathlib.Path({str(tmp_path / 'packed')!r}).read_bytes()\n"
        "engine = BackboneEngine(unpack_backbone(packed, compute_backbone_digest(packed)), 1)\n"
        f"engine.compute_features(np.zeros((2, {SIZE}, {SIZE}), np.uint8))\n"
        "assert not {'tensorflow', 'keras', 'pyspark'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
