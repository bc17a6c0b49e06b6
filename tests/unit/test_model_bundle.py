from __future__ import annotations

import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.errors import ModelError, OutputError
from eagle_spark.metrics.evaluation import Metrics
from eagle_spark.model.bundle import check_target, open_bundle, publish_bundle, seal
from eagle_spark.model.metadata import GateResult, InputContract, ModelMetadata
from eagle_spark.model.review import ReviewThresholds

PLAIN = {"module": "keras.layers", "class_name": "Dense", "config": {}}


def write_network(path: Path, layer: dict[str, Any] = PLAIN, saved: str = "monday") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": [layer]}}))
        archive.writestr("metadata.json", saved)
        archive.writestr("model.weights.h5", b"weights")


METADATA = ModelMetadata(
    classes=("COVID", "Normal"),
    input=InputContract(size=224),
    mask_threshold=0.5,
    review=ReviewThresholds(confidence=0.8, novelty={}, mask={}),
    engines={"openvino": GateResult(passed=True)},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "built"
    (model / "openvino").mkdir(parents=True)
    write_network(model / "model.keras")
    (model / "golden.npz").write_bytes(b"golden")
    (model / "openvino/model.xml").write_bytes(b"<xml/>")
    seal(model, METADATA)
    return model


def test_a_sealed_folder_opens_with_typed_metadata(folder: Path) -> None:
    bundle = open_bundle(str(folder))
    metadata = bundle.metadata
    assert (metadata.classes, metadata.input.size) == (("COVID", "Normal"), 224)
    assert (metadata.mask_threshold, metadata.review) == (0.5, METADATA.review)
    assert bundle.novelty is None
    assert bundle.path == folder
    assert "Research use only" in metadata.intended_use


def test_equal_weights_give_the_same_id_whenever_they_were_saved(folder: Path) -> None:
    before = open_bundle(str(folder)).metadata.model_id
    write_network(folder / "model.keras", saved="tuesday")
    for update, is_equal in (({"run_id": "run"}, True), ({"classes": ("Normal", "COVID")}, False)):
        sealed = seal(folder, METADATA.model_copy(update=update))
        assert (sealed.metadata.model_id == before) is is_equal


# As version 0.1 wrote them, with the ids that it computed for the weights of `write_network`.
CONTRACT = {"channels": 1, "dtype": "uint8", "range": [0, 255], "normalisation": "x", "size": 224}
VERSION_0_1 = {
    "format_version": 2,
    "model_id": "",
    "intended_use": "Research use only.",
    "classes": ["COVID", "Normal"],
    "input": CONTRACT,
    "mask_threshold": 0.5,
    "review": {"confidence": 1.01, "novelty": {"detail": [0.5, 0.7]}, "mask": {}},
    "engines": {
        "openvino": {
            "passed": True,
            "labels_equal": 1.0,
            "probability_difference": None,
            "dice": 1.0,
            "batches": [1, 7, 32, 64],
            "precision": "f32",
        },
        "openvino-int8": {"passed": False, "images": 0, "precision": "int8"},
    },
    "versions": {"python": "3.10.1"},
    "training": {
        "snapshot_id": 2**62,
        "images": {"train": {"COVID": 3}},
        "settings": {"ranks": 2, "seed": 7, "resume": False, "feature_budget": 20.0},
        "temperature": 1.5,
        "epochs": [{"epoch": 1, "loss": 0.5, "gpu_percent": None}],
    },
    "run_id": "train-1",
    "left_out": {},
    "metrics": {
        "val": {"images": 0, "accuracy": None, "recall_by_class": {}, "by_source": {}},
        "test": {
            "images": 2,
            "patients": 2,
            "confusion": [[1, 0], [1, 0]],
            "counted": {"dice": 0},
            "accuracy": 0.5,
            "precision_by_class": {"COVID": 0.5, "Normal": None},
            "intervals": {"accuracy": [0.0, 1.0], "precision_by_class": {"Normal": None}},
            "by_source": {"a": {"images": 2, "accuracy": 0.5}},
        },
    },
    "calibration": {"val": {}},
    "flagged": {"val": {}, "test": {"any": 0.5}},
    "reference": {"images": 2, "label": {"COVID": 1.0}, "novelty": {"edges": [], "shares": [1.0]}},
}


@pytest.mark.parametrize(
    ("threshold", "model_id"),
    [
        # pragma: allowlist nextline secret
        (0.5, "45a232175065813a2eec29264260ee71d60e9c3d103848fd852e64674eb0494e"),
        # pragma: allowlist nextline secret
        (1, "0133471a6964f1ce99a62119dda7dcadd0ab9ab09683d33cd7abe690b2bd310b"),
    ],
)
def test_metadata_of_version_0_1_are_read_and_written_again_as_they_were(
    folder: Path, threshold: float, model_id: str
) -> None:
    path = folder / "metadata.json"
    digests = json.loads(path.read_text())["digests"]
    written = VERSION_0_1 | {"mask_threshold": threshold, "model_id": model_id, "later": [{"a": 1}]}
    path.write_text(json.dumps(written | {"digests": digests}))
    metadata = open_bundle(str(folder)).metadata
    assert metadata.test_metrics.intervals.accuracy == (0.0, 1.0)
    assert metadata.test_metrics.by_source["a"].accuracy == 0.5
    assert metadata.left_out == Metrics()
    assert metadata.calibration == {"val": None}
    assert metadata.training.epochs[0]["epoch"] == 1
    assert not metadata.engines["openvino-int8"].passed
    resealed = seal(folder, metadata)
    assert resealed.metadata.model_id == model_id
    rewritten = json.loads(path.read_text())
    del rewritten["digests"]
    assert json.dumps(rewritten) == json.dumps(written)


def drop_golden(folder: Path) -> None:
    (folder / "golden.npz").unlink()


def alter_engine(folder: Path) -> None:
    (folder / "openvino/model.xml").write_bytes(b"<XML/>")


def add_file(folder: Path) -> None:
    (folder / "openvino/plugin.so").write_bytes(b"")


def link_out(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    (folder.parent / "elsewhere").write_bytes(b"golden")
    (folder / "golden.npz").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (drop_golden, "golden.npz: missing"),
        (alter_engine, "model.xml: altered"),
        (add_file, "plugin.so: not part"),
        (link_out, "golden.npz: not a regular file"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file(
    folder: Path, harm: Callable[[Path], None], named: str
) -> None:
    harm(folder)
    with pytest.raises(ModelError, match=named):
        open_bundle(str(folder))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.update(format_version=1), "format_version must be 2, got 1"),
        (lambda m: m.pop("classes"), "classes is missing"),
        (lambda m: m.pop("model_id"), "model_id is missing"),
        (lambda m: m.pop("engines"), "engines is missing"),
        (lambda m: m.update(mask_threshold="0.5"), "mask_threshold: wanted a number; got"),
        (lambda m: m.update(mask_threshold=True), "mask_threshold: wanted a number; got"),
        (lambda m: m.update(engines={"keras": {"passed": 1}}), "engines.keras.passed: wanted"),
        (lambda m: m.update(metrics={"test": {"images": "9"}}), "metrics.test.images: wanted"),
        (lambda m: m.update(training=[]), "training: wanted an object; got"),
        (lambda m: m.update(later=json.loads("[" * 300 + "]" * 300)), "later.list.0.list.0: "),
        (lambda m: m.update(engines={"a\n\x1b": 1}), r"engines.a\n\x1b: wanted an object"),
        (lambda m: m.update(classes=["one"]), "two or more"),
        (lambda m: m["input"].update(size="224"), "input.size: wanted a valid integer; got '224'"),
        (lambda m: m["input"].update(size=0), "input.size: wanted a number greater than 0; got 0"),
        (lambda m: m["classes"].reverse(), "model_id does not fit"),
        (lambda m: m["digests"].update({"../evil": "0"}), "unsafe file name '../evil'"),
        (lambda m: m["digests"].update({"/etc/passwd": "0"}), "unsafe file name"),
        (lambda m: m["digests"].update({"a\\b": "0"}), "unsafe file name"),
        (lambda m: m["digests"].pop("model.keras"), "model.keras is missing"),
        (lambda m: m["review"].pop("mask"), "review.mask is missing"),
        (lambda m: m.update(engines={"keras": "yes"}), "engines.keras: wanted an object; got"),
        (lambda m: m.update(run_id=["' OR true"]), "run_id: wanted a valid string; got"),
        (lambda m: m.update(reference="none"), "reference: wanted an object; got 'none'"),
        (lambda m: m.update(reference={"images": 9}), "reference: label is empty"),
        (
            lambda m: m.update(
                reference={
                    "images": 9,
                    "label": {"one": 1.0},
                    "novelty": {"edges": [0.5], "shares": [1.0]},
                }
            ),
            "reference: novelty: wanted one share more than edges; got 1",
        ),
    ],
)
def test_wrong_metadata_are_refused_by_key(
    folder: Path, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    edit(folder, change)
    with pytest.raises(ModelError, match=named.replace("\\", "\\\\")):
        open_bundle(str(folder))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_metadata_that_are_no_json_object_are_refused(folder: Path, content: bytes) -> None:
    (folder / "metadata.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"metadata\.json"):
        open_bundle(str(folder))


def test_a_folder_without_metadata_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a model folder"):
        open_bundle(str(tmp_path))


def test_a_model_replaced_during_a_job_is_detected(folder: Path) -> None:
    with pytest.raises(ModelError, match="wanted the model abc"):
        open_bundle(str(folder), expected_id="abc")


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "keras.layers", "class_name": "Lambda", "config": {}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {}},
        {"module": "evil", "class_name": "Dense", "config": {}},
        {"module": "keras.utils", "class_name": "get_file", "config": {}},
        {"class_name": "Own>Layer", "config": {}},
        {"module": "keras.src.ops.numpy", "class_name": "Einsum", "config": {}},
        {"module": "evil", "class_name": "Mean", "config": {}},
        {**PLAIN, "config": {"activation": {"module": "builtins", "class_name": "function"}}},
    ],
)
def test_layers_that_could_run_code_are_refused(folder: Path, layer: dict[str, Any]) -> None:
    write_network(folder / "model.keras", layer)
    with pytest.raises(ModelError, match="not a plain Keras layer"):
        seal(folder, METADATA)


def test_arithmetic_layers_are_accepted(folder: Path) -> None:
    for name in ("Mean", "Std"):
        layer = {"module": "keras.src.ops.numpy", "class_name": name, "config": {"axis": [1, 2]}}
        write_network(folder / "model.keras", layer)
        seal(folder, METADATA)


def test_a_network_file_with_other_members_is_refused(folder: Path) -> None:
    with zipfile.ZipFile(folder / "model.keras", "a") as archive:
        archive.writestr("assets/run.py", "")
    with pytest.raises(ModelError, match=r"assets/run\.py"):
        seal(folder, METADATA)


def test_publishing_copies_every_file_and_leaves_nothing_beside_it(
    folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "models" / "v1"
    publish_bundle(folder, target.as_uri(), overwrite=False)
    assert open_bundle(str(target)).metadata.model_id == open_bundle(str(folder)).metadata.model_id
    assert [path.name for path in target.parent.iterdir()] == ["v1"]


def test_an_existing_target_is_refused_unless_overwritten(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "v1"
    target.mkdir()
    publish_bundle(folder, str(target), overwrite=False)  # an empty folder is not taken
    (target / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"`model` .*`overwrite`"):
        publish_bundle(folder, str(target), overwrite=False)
    assert (target / "note.txt").exists()
    publish_bundle(folder, str(target), overwrite=True)
    assert not (target / "note.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built", "v1"]


@pytest.mark.parametrize("inside", ["note.txt", ".git"])
def test_other_folders_are_never_replaced(folder: Path, tmp_path: Path, inside: str) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / inside).write_text("mine")
    (tmp_path / "plain").write_text("mine too")
    for taken in (target, tmp_path / "plain"):
        with pytest.raises(OutputError, match=rf"`model` {taken}: not a model folder"):
            publish_bundle(folder, str(taken), overwrite=True)
    assert (target / inside).read_text() == "mine"
    assert (tmp_path / "plain").read_text() == "mine too"


def test_an_unwritable_target_is_detected_early(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    for place in ("/proc/x/m", f"{tmp_path}/plain/m", f"{tmp_path}/plain/x/m"):
        with pytest.raises(OutputError, match=rf"`model` {place}: cannot be written"):
            check_target(place, overwrite=False)


@pytest.mark.parametrize("place", ["m", "new/folders/m"])
def test_checking_a_target_leaves_nothing_there(tmp_path: Path, place: str) -> None:
    check_target(str(tmp_path / place), overwrite=False)
    assert not any(tmp_path.iterdir())


def test_a_file_at_the_target_exists_already(tmp_path: Path) -> None:
    (tmp_path / "v1").write_text("a file")
    with pytest.raises(OutputError):
        check_target(str(tmp_path / "v1"), overwrite=False)


def test_a_failing_upload_leaves_the_old_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eagle_spark.io import LocalStorage

    target = tmp_path / "v1"
    publish_bundle(folder, str(target), overwrite=False)
    rename = LocalStorage.rename

    def fail(self: LocalStorage, source: str, goal: str) -> None:
        if source.endswith(".partial"):
            raise OSError("no space")
        rename(self, source, goal)

    monkeypatch.setattr(LocalStorage, "rename", fail)
    with pytest.raises(OutputError, match="no space"):
        publish_bundle(folder, str(target), overwrite=True)
    open_bundle(str(target))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built", "v1"]


@pytest.fixture
def remote(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URI of a model that has to be copied; the disk plays the other machine."""
    from eagle_spark import io as storage
    from eagle_spark.model import bundle

    local = storage.LocalStorage()
    monkeypatch.setattr(bundle, "resolve", lambda uri: (local, uri.removeprefix("hdfs://nn")))
    return f"hdfs://nn{folder}"


def test_a_remote_model_is_copied_once_and_checked_each_time(remote: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    opened = open_bundle(remote, cache=cache)
    assert opened.path.parent == cache
    assert open_bundle(remote, cache=cache).path == opened.path
    (opened.path / "golden.npz").write_bytes(b"altered")
    with pytest.raises(ModelError, match="altered"):
        open_bundle(remote, cache=cache)


def test_an_interrupted_copy_leaves_nothing(folder: Path, remote: str, tmp_path: Path) -> None:
    (folder / "openvino/model.xml").unlink()
    with pytest.raises(ModelError, match=r"openvino/model\.xml: missing"):
        open_bundle(remote, cache=tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_one_clear_error(remote: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ModelError, match=r"cannot be copied to .*cache"):
        open_bundle(remote, cache=tmp_path / "cache")


def test_copies_unused_for_a_day_are_deleted_from_the_cache(remote: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    days = {"old": 9.0, ".left.partial": 8.0, "a": 0.9, "b": 5.0, "c": 4.0, "d": 3.0}
    for name, age in days.items():
        (cache / name).mkdir(parents=True)
        used = time.time() - age * 24 * 3600
        os.utime(cache / name, (used, used))
    opened = open_bundle(remote, cache=cache).path
    assert {path.name for path in cache.iterdir()} == {"a", "c", "d", opened.name}
    os.utime(opened, (0, 0))
    open_bundle(remote, cache=cache)  # in use again
    assert time.time() - opened.stat().st_mtime < 3600


def open_to_all(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)


def link_elsewhere(cache: Path) -> None:
    (cache.parent / "elsewhere").mkdir(mode=0o700)
    cache.symlink_to(cache.parent / "elsewhere")


def give_away(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    if os.getuid():
        pytest.skip("only root gives folders away")
    os.chown(cache, 65534, 65534)


@pytest.mark.parametrize("plant", [open_to_all, link_elsewhere, give_away])
def test_a_cache_writable_by_others_is_refused(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache = tmp_path / f"eagle-models-{os.getuid()}"
    plant(cache)
    with pytest.raises(ModelError, match=rf"{cache}: wanted a folder of this user with mode 0700"):
        open_bundle(remote)
    if cache.is_symlink():
        cache.unlink()
    else:
        cache.rmdir()
    assert open_bundle(remote).path.parent == cache
    assert cache.stat().st_mode & 0o777 == 0o700
