"""`eagle-export`: the network for other programs, as good as Keras or marked as not."""

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

from eagle_spark.errors import BundleError, EagleError, PlatformError, SettingsError
from eagle_spark.model import add_exports as portable
from eagle_spark.model.bundle import open_bundle, seal
from eagle_spark.model.engines import LITERT_FILE, ONNX_FILE, choose_engine, load_engine
from eagle_spark.options import parse_settings
from eagle_spark.settings import ExportSettings

SIZE = 64
FORMATS = ["onnx", "litert"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose network says something, without any export."""
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
    wanted = write_golden(folder, pixels, reference)
    card = {
        "classes": ["A", "B"],
        "input": {"size": SIZE},
        "mask_threshold": 0.5,
        "review": {"confidence": 0.8, "novelty": {}, "mask": {}},
        "engines": run_gate(folder, pixels, wanted, 0.5, 1, reference),
        "metrics": {"test": {"accuracy": 0.9}},
    }
    seal(folder, card)
    return folder


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture(scope="module")
def exported(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], str]:
    """What the command made of the model, and said on both outputs."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(model, folder)
    command = [str(Path(sys.executable).with_name("eagle-export")), "--model", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout), done.stderr


@pytest.mark.slow("exports a network to ONNX and LiteRT")
@pytest.mark.train
def test_both_formats_pass_and_the_model_stays_the_same(
    model: Path, exported: tuple[Path, dict[str, Any], str]
) -> None:
    folder, result, said = exported
    before, after = open_bundle(str(model)), open_bundle(str(folder))
    assert after.model_id == before.model_id == result["model_id"]
    assert after.engines == {**before.engines, **result["engines"]}
    for name, file in zip(FORMATS, (ONNX_FILE, LITERT_FILE), strict=True):
        assert after.engines[name]["passed"]
        assert after.engines[name]["batches"] == [1, 7, 32, 64]
        assert after.metadata["digests"][file]
        assert result["bytes"][name] == (folder / file).stat().st_size > 4 * 2_300_000
    unchanged = set(before.metadata) - {"engines", "digests"}
    assert {key: after.metadata[key] for key in unchanged} == {
        key: before.metadata[key] for key in unchanged
    }
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert "Warning" not in said


@pytest.mark.train
@pytest.mark.parametrize("name", FORMATS)
def test_a_row_does_not_depend_on_its_batch_and_is_that_of_keras(
    exported: tuple[Path, dict[str, Any], str], name: str
) -> None:
    bundle = open_bundle(str(exported[0]))
    engine = load_engine(bundle, name, 1)
    with np.load(bundle.path / "golden.npz") as golden:
        pixels, label, mask = (golden[part] for part in ("pixels", "label", "mask"))
        seen = golden["statistics"]
    assert np.ptp(label) > 0.1
    labels, masks, statistics = engine.predict(pixels)
    assert labels.dtype == masks.dtype == np.float32
    np.testing.assert_allclose(labels, label, atol=1e-4)
    np.testing.assert_allclose(masks, mask, atol=2e-3)  # kept in float16
    np.testing.assert_allclose(statistics, seen, atol=1e-3)
    for size in (1, 7):
        few, some, _ = engine.predict(pixels[:size])
        np.testing.assert_allclose(few, labels[:size], atol=1e-5)
        np.testing.assert_allclose(some, masks[:size], atol=1e-5)


@pytest.mark.train
def test_no_engine_but_keras_loads_tensorflow(exported: tuple[Path, dict[str, Any], str]) -> None:
    program = (
        "import sys, numpy as np\n"
        "from eagle_spark.model.bundle import open_bundle\n"
        "from eagle_spark.model.engines import choose_engine, load_engine\n"
        f"bundle = open_bundle({str(exported[0])!r})\n"
        "assert choose_engine(bundle, 'auto') == 'litert'\n"
        "for name in ('onnx', 'litert'):\n"
        "    load_engine(bundle, name, 1).predict(np.zeros((2, 64, 64), np.uint8))\n"
        "assert not {'tensorflow', 'keras', 'pyspark', 'onnx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.train
def test_other_programs_find_the_input_and_outputs_by_name(
    exported: tuple[Path, dict[str, Any], str],
) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from onnxruntime import InferenceSession

    session = InferenceSession(str(exported[0] / ONNX_FILE), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("pixels", "tensor(uint8)", [SIZE, SIZE, 1])
    assert isinstance(given.shape[0], str)  # any number of images
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
    with pytest.raises(BundleError, match=r"model\.onnx: altered"):
        open_bundle(str(folder))


@pytest.mark.extended("exports another network", seconds=10)
@pytest.mark.train
def test_an_export_that_says_something_else_is_kept_but_never_used(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eagle_spark.model.network import build_network

    other = build_network(("A", "B"), SIZE, weights=None, seed=2)
    save = partial(portable.save_portable, other)
    monkeypatch.setattr(portable, "save_portable", lambda _, *rest: save(*rest))
    model_id = open_bundle(str(copy)).model_id
    with pytest.raises(EagleError, match="onnx does not say what Keras says") as caught:
        portable.add_exports(ExportSettings(model=str(copy), format="onnx"))
    assert caught.value.exit_code == 1
    assert caught.value.figures["model_id"] == model_id
    bundle = open_bundle(str(copy), model_id)
    assert bundle.engines["onnx"]["passed"] is False
    assert choose_engine(bundle, "auto") == "keras"
    with pytest.raises(BundleError, match="--engine onnx: has not passed"):
        choose_engine(bundle, "onnx")


@pytest.mark.train
def test_a_model_that_was_replaced_meanwhile_is_left_alone(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(*_: object) -> dict[str, Any]:
        card = dict(open_bundle(str(copy)).metadata) | {"classes": ["C", "D"]}
        seal(copy, {key: card[key] for key in card if key not in ("model_id", "digests")})
        return {}

    monkeypatch.setattr(portable, "export", replace)
    with pytest.raises(BundleError, match="was it replaced"):
        portable.add_exports(ExportSettings(model=str(copy), format="onnx"))
    assert open_bundle(str(copy)).classes == ("C", "D")


def test_what_lacks_is_named_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "find_spec", lambda name: None if name == "tf2onnx" else name)
    portable.check_installed(["litert"])
    with pytest.raises(PlatformError, match=r"not installed: tf2onnx; .*eagle-spark\[exports\]"):
        portable.add_exports(ExportSettings(model="no model"))


@pytest.mark.parametrize("given", ["", "onnx,", "onnx,onnx", "tflite"])
def test_other_formats_are_refused(given: str) -> None:
    with pytest.raises(SettingsError, match="--format: wanted onnx, litert, or both"):
        parse_settings(ExportSettings, ["--model", "m", "--format", given])


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--model", "no/such/model"], "not a model folder"), ([], "missing: --model")],
)
def test_a_wrong_call_ends_with_two_and_a_line(options: Sequence[str], said: str) -> None:
    program = Path(sys.executable).with_name("eagle-export")
    done = subprocess.run([program, *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in json.loads(done.stdout)["error"]
