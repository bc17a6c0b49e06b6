"""The stored backbone: exported once a warehouse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eagle_spark.errors import EagleError, InputError
from eagle_spark.training.features import load_backbone
from eagle_spark.training.frozen import Backbone, prepare_backbone

pytestmark = pytest.mark.train
SIZE = 64


@pytest.fixture
def warehouse(backbone: Backbone) -> str:
    return backbone.uri.split("/cxr/_backbones/")[0]


def test_the_second_training_reads_the_stored_backbone_without_tensorflow(
    backbone: Backbone, warehouse: str
) -> None:
    program = (
        "import sys\n"
        "from eagle_spark.training.frozen import prepare_backbone\n"
        f"print(prepare_backbone({warehouse!r}, 'none', {SIZE}, 3))\n"
        "assert not {'tensorflow', 'keras', 'openvino'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(backbone)


def test_other_initial_weights_are_another_backbone(backbone: Backbone, warehouse: str) -> None:
    other = prepare_backbone(warehouse, "none", 32, 4)
    assert other.digest != backbone.digest
    assert other.uri.rsplit("/", 2)[0] == backbone.uri.rsplit("/", 2)[0]
    assert other.uri.rsplit("/", 2)[1] != backbone.uri.rsplit("/", 2)[1]
    assert other.size == 32
    assert prepare_backbone(warehouse, "none", SIZE, 3) == backbone


def test_a_damaged_backbone_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    data = bytearray(Path(backbone.uri.removeprefix("file://")).read_bytes())
    data[len(data) // 2] ^= 1
    copy = tmp_path / f"{backbone.digest}.npz"
    copy.write_bytes(data)
    with pytest.raises(EagleError, match=rf"{backbone.digest} is damaged"):
        load_backbone(Backbone(copy.as_uri(), backbone.digest, SIZE), 1)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`weights` .*gone\.h5: no such file"):
        prepare_backbone(str(tmp_path), str(tmp_path / "gone.h5"), SIZE, 3)
    assert not any(tmp_path.iterdir())
