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

from eagle_spark.errors import BundleError, OutputError
from eagle_spark.model.bundle import check_target, open_bundle, publish_bundle, seal
from eagle_spark.model.review import Limits

PLAIN = {"module": "keras.layers", "class_name": "Dense", "config": {}}


def write_network(path: Path, layer: dict[str, Any] = PLAIN, saved: str = "monday") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": [layer]}}))
        archive.writestr("metadata.json", saved)
        archive.writestr("model.weights.h5", b"weights")


def card(**changes: Any) -> dict[str, Any]:
    return {
        "classes": ["COVID", "Normal"],
        "input": {"size": 224},
        "mask_threshold": 0.5,
        "review": {"confidence": 0.8, "novelty": {}, "mask": {}},
        "engines": {"openvino": {"passed": True}},
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "built"
    (model / "openvino").mkdir(parents=True)
    write_network(model / "model.keras")
    (model / "golden.npz").write_bytes(b"golden")
    (model / "openvino/model.xml").write_bytes(b"<xml/>")
    seal(model, card())
    return model


def test_a_sealed_folder_opens_with_typed_metadata(folder: Path) -> None:
    bundle = open_bundle(str(folder))
    assert (bundle.classes, bundle.size, bundle.threshold) == (("COVID", "Normal"), 224, 0.5)
    assert bundle.limits == Limits(0.8)
    assert bundle.novelty is None
    assert bundle.path == folder
    assert "Research use only" in bundle.metadata["intended_use"]


def test_equal_weights_give_the_same_id_whenever_they_were_saved(folder: Path) -> None:
    before = open_bundle(str(folder)).model_id
    write_network(folder / "model.keras", saved="tuesday")
    assert seal(folder, card(metrics={"accuracy": 1})).model_id == before
    assert seal(folder, card(classes=["Normal", "COVID"])).model_id != before


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
def test_a_harmed_folder_is_refused_and_the_file_named(
    folder: Path, harm: Callable[[Path], None], named: str
) -> None:
    harm(folder)
    with pytest.raises(BundleError, match=named):
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
        (lambda m: m.update(classes=["one"]), "two or more"),
        (lambda m: m["input"].update(size="224"), "input.size"),
        (lambda m: m["classes"].reverse(), "model_id does not fit"),
        (lambda m: m["digests"].update({"../evil": "0"}), "unsafe file name '../evil'"),
        (lambda m: m["digests"].update({"/etc/passwd": "0"}), "unsafe file name"),
        (lambda m: m["digests"].update({"a\\b": "0"}), "unsafe file name"),
        (lambda m: m["digests"].pop("model.keras"), "model.keras is missing"),
        (lambda m: m["review"].pop("mask"), "review is not what it should be"),
        (lambda m: m.update(engines={"keras": "yes"}), "one object per engine"),
        (lambda m: m.update(run_id=["' OR true"]), "run_id is of the wrong type"),
        (lambda m: m.update(reference="none"), "reference is of the wrong type"),
        (lambda m: m.update(reference={"images": 9}), "reference must hold"),
        (
            lambda m: m.update(
                reference={
                    "images": 9,
                    "label": {"one": 1.0},
                    "novelty": {"edges": [0.5], "shares": [1.0]},
                }
            ),
            "reference must hold",
        ),
    ],
)
def test_wrong_metadata_are_refused_by_key(
    folder: Path, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    edit(folder, change)
    with pytest.raises(BundleError, match=named.replace("\\", "\\\\")):
        open_bundle(str(folder))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_metadata_that_are_no_json_object_are_refused(folder: Path, content: bytes) -> None:
    (folder / "metadata.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"metadata\.json"):
        open_bundle(str(folder))


def test_a_folder_without_metadata_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a model folder"):
        open_bundle(str(tmp_path))


def test_a_model_replaced_during_a_job_is_noticed(folder: Path) -> None:
    with pytest.raises(BundleError, match="wanted abc"):
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
    with pytest.raises(BundleError, match="not a plain Keras layer"):
        seal(folder, card())


def test_the_arithmetic_of_the_network_is_taken(folder: Path) -> None:
    for name in ("Mean", "Std"):
        layer = {"module": "keras.src.ops.numpy", "class_name": name, "config": {"axis": [1, 2]}}
        write_network(folder / "model.keras", layer)
        seal(folder, card())


def test_a_network_file_with_other_members_is_refused(folder: Path) -> None:
    with zipfile.ZipFile(folder / "model.keras", "a") as archive:
        archive.writestr("assets/run.py", "")
    with pytest.raises(BundleError, match=r"assets/run\.py"):
        seal(folder, card())


def test_publishing_copies_every_file_and_leaves_nothing_beside_it(
    folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "models" / "v1"
    publish_bundle(folder, target.as_uri(), overwrite=False)
    assert open_bundle(str(target)).model_id == open_bundle(str(folder)).model_id
    assert [path.name for path in target.parent.iterdir()] == ["v1"]


def test_a_taken_target_is_refused_unless_overwritten(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "v1"
    target.mkdir()
    publish_bundle(folder, str(target), overwrite=False)  # an empty folder is not taken
    (target / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"--model .*--overwrite"):
        publish_bundle(folder, str(target), overwrite=False)
    assert (target / "note.txt").exists()
    publish_bundle(folder, str(target), overwrite=True)
    assert not (target / "note.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built", "v1"]


@pytest.mark.parametrize("inside", ["note.txt", ".git"])
def test_what_is_no_model_is_never_replaced(folder: Path, tmp_path: Path, inside: str) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / inside).write_text("mine")
    (tmp_path / "plain").write_text("mine too")
    for taken in (target, tmp_path / "plain"):
        with pytest.raises(OutputError, match=rf"--model {taken}: is no model folder"):
            publish_bundle(folder, str(taken), overwrite=True)
    assert (target / inside).read_text() == "mine"
    assert (tmp_path / "plain").read_text() == "mine too"


def test_a_place_that_cannot_be_written_is_noticed_early(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    for place in ("/proc/x/m", f"{tmp_path}/plain/m", f"{tmp_path}/plain/x/m"):
        with pytest.raises(OutputError, match=rf"--model {place}: cannot be written"):
            check_target(place, overwrite=False)


@pytest.mark.parametrize("place", ["m", "new/folders/m"])
def test_checking_a_target_leaves_nothing_there(tmp_path: Path, place: str) -> None:
    check_target(str(tmp_path / place), overwrite=False)
    assert not any(tmp_path.iterdir())


def test_a_file_at_the_target_is_taken(tmp_path: Path) -> None:
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
    monkeypatch.setattr(bundle, "locate", lambda uri: (local, uri.removeprefix("hdfs://nn")))
    return f"hdfs://nn{folder}"


def test_a_remote_model_is_copied_once_and_checked_each_time(remote: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    opened = open_bundle(remote, cache=cache)
    assert opened.path.parent == cache
    assert open_bundle(remote, cache=cache).path == opened.path
    (opened.path / "golden.npz").write_bytes(b"altered")
    with pytest.raises(BundleError, match="altered"):
        open_bundle(remote, cache=cache)


def test_a_copy_that_breaks_off_leaves_nothing(folder: Path, remote: str, tmp_path: Path) -> None:
    (folder / "openvino/model.xml").unlink()
    with pytest.raises(BundleError, match=r"openvino/model\.xml: missing"):
        open_bundle(remote, cache=tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_one_clear_error(remote: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BundleError, match=r"cannot be copied to .*cache"):
        open_bundle(remote, cache=tmp_path / "cache")


def test_the_cache_forgets_what_nobody_used_for_a_day(remote: str, tmp_path: Path) -> None:
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
def test_a_cache_into_which_others_could_put_files_is_refused(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache = tmp_path / f"eagle-models-{os.getuid()}"
    plant(cache)
    with pytest.raises(BundleError, match=rf"{cache}: models are copied only into a folder"):
        open_bundle(remote)
    if cache.is_symlink():
        cache.unlink()
    else:
        cache.rmdir()
    assert open_bundle(remote).path.parent == cache
    assert cache.stat().st_mode & 0o777 == 0o700
