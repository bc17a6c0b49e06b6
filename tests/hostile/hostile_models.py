"""Hostile model folders: name -> change of a valid folder, outcome."""

from __future__ import annotations

import base64
import json
import marshal
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from eagle_spark.model.novelty import NOVELTY_FILE
from tests.hostile.hostile_archives import inflated

CANARY = "canary"  # beside the model folder once code out of it has run
NETWORK = "model.keras"


def swapped(folder: Path) -> None:
    first, second, *_ = sorted(_digests(folder))
    (folder / first).replace(folder / "between")
    (folder / second).replace(folder / first)
    (folder / "between").replace(folder / second)


def _digests(folder: Path) -> dict[str, str]:
    digests: dict[str, str] = json.loads((folder / "metadata.json").read_text())["digests"]
    return digests


def metadata(**changed: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = json.loads((folder / "metadata.json").read_text())
        (folder / "metadata.json").write_text(json.dumps(values | changed))

    return change


def _under_its_digest(path: Path) -> None:
    digest = sha256(path.read_bytes()).hexdigest()
    metadata(digests=_digests(path.parent) | {path.name: digest})(path.parent)


def _text(config: Any) -> str:
    return config if isinstance(config, str) else json.dumps(config)


def network(config: Callable[[Path], Any]) -> Callable[[Path], None]:
    """A network of this configuration in the place of the sound one, under a digest that fits."""

    def change(folder: Path) -> None:
        path = folder / NETWORK
        with zipfile.ZipFile(path) as old:
            parts = {name: old.read(name) for name in old.namelist()}
        parts["config.json"] = _text(config(folder)).encode()
        with zipfile.ZipFile(path, "w") as new:
            for name, content in parts.items():
                new.writestr(name, content)
        _under_its_digest(path)

    return change


def code(folder: Path) -> dict[str, Any]:
    """A function as Keras 3 stores it, that leaves the canary when it is called."""
    canary = str(folder.parent / CANARY)
    written = compile(f"lambda *x, **_: (open({canary!r}, 'w').close(), x[0])[1]", "x", "eval")
    (function,) = (part for part in written.co_consts if hasattr(part, "co_code"))
    text = base64.encodebytes(marshal.dumps(function)).decode()
    of_a_layer = {"code": text, "defaults": None, "closure": None}
    return {"class_name": "__lambda__", "config": {**of_a_layer, "value": [text, None, None]}}


def layers(*added: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    first = ("InputLayer", {"batch_shape": [None, 1], "name": "pixels"})
    entries = [
        {"module": "keras.layers", "class_name": name, "config": config, "registered_name": None}
        for name, config in (first, *added)
    ]
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "eagle", "layers": entries, "build_input_shape": [None, 1]},
        "registered_name": None,
    }


def lambda_layer(folder: Path) -> dict[str, Any]:
    return layers(("Lambda", {"name": "code", "function": code(folder)}))


def lambda_activation(folder: Path) -> dict[str, Any]:
    return layers(("Activation", {"name": "code", "activation": code(folder)}))


class _Pickled:
    def __init__(self, canary: Path) -> None:
        self._canary = str(canary)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._canary, "w")


def pickled(folder: Path) -> None:
    """Arrays of objects, whose unpickling leaves the canary."""
    objects = np.array([_Pickled(folder.parent / CANARY)], dtype=object)
    np.savez(folder / NOVELTY_FILE, **{"detail.mean": objects})
    _under_its_digest(folder / NOVELTY_FILE)


def bomb(folder: Path) -> None:
    (folder / NETWORK).write_bytes(inflated(2**30, 2**30, "config.json"))
    _under_its_digest(folder / NETWORK)


def weights_bomb(folder: Path) -> None:
    path = folder / NETWORK
    with zipfile.ZipFile(path) as old:
        config = old.read("config.json")
    path.write_bytes(inflated(2**30, 2**30, "model.weights.h5"))
    with zipfile.ZipFile(path, "a") as new:
        new.writestr("config.json", config)
    _under_its_digest(path)


def arrays_bomb(folder: Path) -> None:
    (folder / NOVELTY_FILE).write_bytes(inflated(2**30, 2**30, "detail.mean.npy"))
    _under_its_digest(folder / NOVELTY_FILE)


def damaged(folder: Path) -> None:
    (folder / NOVELTY_FILE).write_bytes(b"PK\3\4" + bytes(100))
    _under_its_digest(folder / NOVELTY_FILE)


def linked(folder: Path) -> None:
    (folder / NETWORK).unlink()
    (folder / NETWORK).symlink_to("/etc/passwd")


AT = "error: /model/"
MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "as it is": (lambda _: None, "accepted"),
    "two files swapped": (swapped, f"{AT}MODEL_CARD.md: altered"),
    "a file that is missing": (
        lambda folder: (folder / NETWORK).unlink(),
        f"{AT}model.keras: missing",
    ),
    "a file turned into a link": (linked, f"{AT}model.keras: not a regular file"),
    "a file without a digest": (
        lambda folder: (folder / "run.py").write_text("raise SystemExit"),
        f"{AT}run.py: not part of the model",
    ),
    "metadata of another size": (
        metadata(input={"size": 99_999}),
        f"{AT}metadata.json: model_id does not fit",
    ),
    "metadata without digests": (
        metadata(digests={}),
        f"{AT}metadata.json: model.keras is missing from digests",
    ),
    "digests of files outside": (
        metadata(digests={"../../etc/passwd": "0" * 64}),
        f"{AT}metadata.json: unsafe file name",
    ),
    "metadata that are a list": (
        lambda folder: (folder / "metadata.json").write_text("[]"),
        f"{AT}metadata.json: format_version must be 2",
    ),
    "a model_id that is SQL": (
        metadata(model_id="' OR '1'='1"),
        f"{AT}metadata.json: model_id does not fit",
    ),
    "a Lambda layer with code in it": (
        network(lambda_layer),
        f"{AT}model.keras: holds keras.layers.Lambda",
    ),
    "code as activation": (
        network(lambda_activation),
        f"{AT}model.keras: holds None.__lambda__",
    ),
    "a layer of another module": (
        network(lambda _: {"module": "os", "class_name": "system", "config": "reboot"}),
        f"{AT}model.keras: holds os.system",
    ),
    "a network that inflates to 1 GB": (bomb, f"{AT}model.keras: config.json is too large"),
    "weights that inflate to 1 GB": (
        weights_bomb,
        f"{AT}model.keras: not a Keras model file: Bad CRC-32",
    ),
    "a network that is nested 100,000 deep": (
        network(lambda _: "[" * 100_000 + "]" * 100_000),
        f"{AT}model.keras: not a Keras model file",
    ),
    "metadata that are nested 100,000 deep": (
        lambda folder: (folder / "metadata.json").write_text("[" * 100_000),
        f"{AT}metadata.json: not JSON",
    ),
    "a run_id that is SQL in a list": (
        metadata(run_id=["' OR true"]),
        f"{AT}metadata.json: run_id: wanted a valid string; got",
    ),
    "a reference that is none": (
        metadata(reference={"images": 9}),
        f"{AT}metadata.json: reference: label is empty",
    ),
    "arrays that inflate to 1 GB": (
        arrays_bomb,
        f"{AT}novelty.npz: not a novelty file",
    ),
    "arrays that are no archive": (damaged, f"{AT}novelty.npz: not a novelty file"),
    "arrays that are pickled": (pickled, f"{AT}novelty.npz: not a novelty file"),
}
