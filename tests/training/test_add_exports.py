"""`eagle export`: the network for other programs, as good as Keras or marked as not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eagle_spark.cli.parse import parse_settings
from eagle_spark.errors import EagleError, ModelError, PlatformError, SettingsError
from eagle_spark.metrics.evaluation import Metrics
from eagle_spark.model import add_exports as portable
from eagle_spark.model.bundle import open_bundle, seal
from eagle_spark.model.engines import LITERT_FILE, ONNX_FILE, choose_engine
from eagle_spark.model.metadata import GateResult, InputContract, ModelMetadata
from eagle_spark.model.predictor import ModelRef
from eagle_spark.model.review import ReviewThresholds
from eagle_spark.settings import ExportSettings
from tests.helpers.processes import run_eagle

SIZE = 64
FORMATS = ["onnx", "litert"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose predictions depend on the image, without any export."""
    from eagle_spark.model.engines import KerasEngine
    from eagle_spark.model.gate import run_gate, write_golden
    from eagle_spark.model.network import LABEL_UNITS, build_network

    folder = tmp_path_factory.mktemp("portable") / "model"
    folder.mkdir()
    network = build_network(("A", "B"), SIZE, weights=None, seed=1)
    label = network.get_layer("heads").get_layer("label")
    label.set_weights([np.random.default_rng(0).normal(0, 0.2, (LABEL_UNITS, 2)), np.zeros(2)])
    network.save(folder / "model.keras")
    reference = KerasEngine(folder, 1)
    pixels = np.random.default_rng(1).integers(0, 256, (64, SIZE, SIZE), np.uint8)
    expected = write_golden(folder, pixels, reference)
    metadata = ModelMetadata(
        classes=("A", "B"),
        input=InputContract(size=SIZE),
        mask_threshold=0.5,
        review=ReviewThresholds(confidence=0.8, novelty={}, mask={}),
        engines=run_gate(folder, pixels, expected, 0.5, 1, reference),
        metrics={"test": Metrics(accuracy=0.9)},
    )
    seal(folder, metadata)
    return folder


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture(scope="module")
def exported(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], str]:
    """The exported model, the JSON of the command and its standard error."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(model, folder)
    done = run_eagle("export", "--model", folder, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout), done.stderr


@pytest.mark.slow("exports a network to ONNX and LiteRT")
@pytest.mark.train
def test_both_formats_pass_and_the_model_stays_the_same(
    model: Path, exported: tuple[Path, dict[str, Any], str]
) -> None:
    folder, result, log = exported
    before, after = open_bundle(str(model)), open_bundle(str(folder))
    assert after.metadata.model_id == before.metadata.model_id == result["model_id"]
    added = {name: GateResult.model_validate(values) for name, values in result["engines"].items()}
    assert after.metadata.engines == {**before.metadata.engines, **added}
    for name, file in zip(FORMATS, (ONNX_FILE, LITERT_FILE), strict=True):
        assert after.metadata.engines[name].passed
        assert after.metadata.engines[name].batches == [1, 7, 32, 64]
        assert after.metadata.digests[file]
        assert result["bytes"][name] == (folder / file).stat().st_size > 4 * 2_300_000
    changed = {"engines", "digests"}
    assert after.metadata.model_dump(exclude=changed) == before.metadata.model_dump(exclude=changed)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert "Warning" not in log


@pytest.mark.train
@pytest.mark.parametrize("name", FORMATS)
def test_a_row_does_not_depend_on_its_batch_and_equals_that_of_keras(
    exported: tuple[Path, dict[str, Any], str], name: str
) -> None:
    bundle = open_bundle(str(exported[0]))
    model = ModelRef(str(exported[0]), bundle.metadata.model_id, name, 1).load()
    with np.load(bundle.path / "golden.npz") as golden:
        pixels, label, mask = (golden[part] for part in ("pixels", "label", "mask"))
        expected_statistics = golden["statistics"]
    assert np.ptp(label) > 0.1
    labels, masks, statistics = model.compute_outputs(pixels)
    assert labels.dtype == masks.dtype == np.float32
    np.testing.assert_allclose(labels, label, atol=1e-4)
    np.testing.assert_allclose(masks, mask, atol=2e-3)  # kept in float16
    np.testing.assert_allclose(statistics, expected_statistics, atol=1e-3)
    for size in (1, 7):
        few_labels, few_masks, _ = model.compute_outputs(pixels[:size])
        np.testing.assert_allclose(few_labels, labels[:size], atol=1e-5)
        np.testing.assert_allclose(few_masks, masks[:size], atol=1e-5)


@pytest.mark.train
def test_no_engine_but_keras_loads_tensorflow(exported: tuple[Path, dict[str, Any], str]) -> None:
    program = (
        "import sys, numpy as np\n"
        "from eagle_spark.model.bundle import open_bundle\n"
        "from eagle_spark.model.engines import choose_engine\n"
        "from eagle_spark.model.predictor import ModelRef\n"
        f"bundle = open_bundle({str(exported[0])!r})\n"
        "assert choose_engine(bundle, 'auto') == 'litert'\n"
        "for name in ('onnx', 'litert'):\n"
        "    model = ModelRef(str(bundle.path), None, name, 1).load()\n"
        "    model.compute_outputs(np.zeros((2, 64, 64), np.uint8))\n"
        "assert not {'tensorflow', 'keras', 'pyspark', 'onnx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.train
def test_inputs_and_outputs_have_names_for_other_programs(
    exported: tuple[Path, dict[str, Any], str],
) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from onnxruntime import InferenceSession

    session = InferenceSession(str(exported[0] / ONNX_FILE), providers=["CPUExecutionProvider"])
    (tensor,) = session.get_inputs()
    assert (tensor.name, tensor.type, tensor.shape[1:]) == (
        "pixels",
        "tensor(uint8)",
        [SIZE, SIZE, 1],
    )
    assert isinstance(tensor.shape[0], str)  # any number of images
    assert {output.name for output in session.get_outputs()} == {"label", "mask", "statistics"}

    interpreter = Interpreter(str(exported[0] / LITERT_FILE))
    (signature,) = interpreter.get_signature_list().values()
    assert signature["inputs"] == ["pixels"]
    assert set(signature["outputs"]) == {"label", "mask", "statistics"}
    (details,) = interpreter.get_input_details()
    assert details["dtype"] is np.uint8
    assert details["shape_signature"].tolist() == [1, SIZE, SIZE, 1]


@pytest.mark.train
def test_an_altered_export_is_refused(
    exported: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported[0], tmp_path / "model"))
    with (folder / ONNX_FILE).open("r+b") as file:
        file.seek(1000)
        file.write(b"evil")
    with pytest.raises(ModelError, match=r"model\.onnx: altered"):
        open_bundle(str(folder))


@pytest.mark.extended("exports another network", seconds=10)
@pytest.mark.train
def test_an_export_with_other_outputs_is_stored_but_never_used(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eagle_spark.model.network import build_network

    other = build_network(("A", "B"), SIZE, weights=None, seed=2)
    save = partial(portable.save_portable, other)
    monkeypatch.setattr(portable, "save_portable", lambda _, *rest: save(*rest))
    model_id = open_bundle(str(copy)).metadata.model_id
    with pytest.raises(EagleError, match="outputs of onnx differ from those of Keras") as caught:
        portable.add_exports(ExportSettings(model=str(copy), format="onnx"))
    assert caught.value.exit_code == 1
    assert caught.value.figures["model_id"] == model_id
    bundle = open_bundle(str(copy), model_id)
    assert bundle.metadata.engines["onnx"].passed is False
    assert choose_engine(bundle, "auto") == "keras"
    with pytest.raises(ModelError, match="`engine` onnx: has not passed"):
        choose_engine(bundle, "onnx")


@pytest.mark.train
def test_a_model_replaced_during_the_export_is_not_changed(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(*_: object) -> dict[str, Any]:
        metadata = open_bundle(str(copy)).metadata
        seal(copy, metadata.model_copy(update={"classes": ("C", "D")}))
        return {}

    monkeypatch.setattr(portable, "export_formats", replace)
    with pytest.raises(ModelError, match="was it replaced"):
        portable.add_exports(ExportSettings(model=str(copy), format="onnx"))
    assert open_bundle(str(copy)).metadata.classes == ("C", "D")


def test_missing_packages_are_named_before_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "eagle_spark.errors.find_spec", lambda name: None if name == "tf2onnx" else name
    )
    portable.check_installed(["litert"])
    with pytest.raises(PlatformError, match=r"`format` onnx needs tf2onnx, .*\[exports\]"):
        portable.add_exports(ExportSettings(model="no model"))


@pytest.mark.parametrize("formats", ["", "onnx,", "onnx,onnx", "tflite"])
def test_other_formats_are_refused(formats: str) -> None:
    with pytest.raises(SettingsError, match="--format: wanted onnx, litert, or both"):
        parse_settings(ExportSettings, ["--model", "m", "--format", formats])


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--model", "no/such/model"], "not a model folder"), ([], "missing: --model")],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(options: Sequence[str], message: str) -> None:
    done = run_eagle("export", *options)
    assert done.returncode == 2
    assert message in json.loads(done.stdout)["error"]
