"""Hostile inputs: a named reason or one clear error each, in bounded time and memory."""

from __future__ import annotations

import csv
import os
import pickle
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.sample_images import make_tinted, write_file
from tests.hostile import hostile_trial
from tests.hostile.hostile import cases
from tests.hostile.hostile_models import CANARY, lambda_activation, lambda_layer, network
from tests.hostile.hostile_settings import SQL
from tests.hostile.hostile_trial import MEGABYTES, Case, Outcome, try_out
from tests.hostile.hostile_workbooks import LINK, REST, WORKBOOKS

NO_MODEL = Path("no model")
ALL = list(cases(NO_MODEL))


def check(case: Case, folder: Path) -> None:
    outcome = try_out(case, folder)
    assert case.is_met_by(outcome), (outcome, case.expected)


@pytest.mark.parametrize(
    "case",
    [case for case in ALL if case.kind != "model"],
    ids=lambda case: f"{case.kind}: {case.name}",
)
def test_a_hostile_input_gets_its_reason_in_bounds(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.train
@pytest.mark.parametrize("name", [case.name for case in ALL if case.kind == "model"])
def test_a_hostile_model_is_refused(name: str, model_folder: Path, tmp_path: Path) -> None:
    check(
        next(case for case in cases(model_folder) if case.name == name and case.kind == "model"),
        tmp_path,
    )


def test_there_are_at_least_sixty_kinds() -> None:
    assert len({case.name for case in ALL}) >= 60


def test_a_case_has_an_expected_outcome() -> None:
    with pytest.raises(ValueError, match="image: odd"):
        Case("image", "odd", str, "")
    case = Case("image", "odd", str, "accepted")
    assert case.is_met_by(Outcome("accepted", 0.1, MEGABYTES - 1))
    assert not case.is_met_by(Outcome("accepted", 0.1, MEGABYTES))
    assert not case.is_met_by(Outcome("", 0.1, 0))


def connect(_: Path) -> None:
    with socket.socket() as client:
        client.connect_ex(("127.0.0.1", 9))


ACTIONS: dict[str, Callable[[Path], object]] = {
    "ran a program: os.system": lambda _: os.system("true"),  # noqa: S605, S607
    "ran a program: subprocess.Popen": lambda _: subprocess.run([sys.executable, "-V"]),
    "opened a socket: socket.connect": connect,
    "made a function": lambda _: types.FunctionType(connect.__code__, {}),
    "unpickled": lambda _: pickle.loads(pickle.dumps(Path())),  # noqa: S301
    "wrote elsewhere: open": lambda folder: (folder.parent / "canary").write_text("x"),
    "wrote elsewhere: os.mkdir": lambda folder: (folder.parent / "canaries").mkdir(),
    "printed a password": lambda _: print("hdfs://u:secret@h"),
    "raised MemoryError": lambda _: bytearray(2 * MEGABYTES * 2**20),
    "raised ZeroDivisionError": lambda _: 1 / 0,
    "ended with 3": lambda _: os._exit(3),
    "did not end within 1 s": lambda _: time.sleep(60),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_forbidden_actions_are_reported(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "not end" in action:
        monkeypatch.setattr(hostile_trial, "SECONDS", 1)
    (tmp_path / "own").mkdir()
    case = Case("any", action, lambda folder: (ACTIONS[action](folder), "accepted")[1], "accepted")
    outcome = try_out(case, tmp_path / "own")
    assert outcome.text.startswith(action)
    assert not case.is_met_by(outcome)


def test_the_link_to_another_workbook_is_one_that_readers_follow() -> None:
    from openpyxl import load_workbook

    make, _ = WORKBOOKS["a link to another workbook"]
    (link,) = load_workbook(BytesIO(make()), keep_links=True)._external_links
    assert link.file_link.Target == LINK


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")  # whatever Keras thinks of such a file
@pytest.mark.parametrize("config", [lambda_layer, lambda_activation])
def test_the_code_in_a_model_would_run(
    config: Callable[[Path], Any], model_folder: Path, tmp_path: Path
) -> None:
    import shutil
    from contextlib import suppress

    import keras
    import numpy as np

    shutil.copytree(model_folder, tmp_path / "model")
    network(config)(tmp_path / "model")
    with suppress(Exception):  # the weights are another network's
        loaded = keras.models.load_model(tmp_path / "model" / "model.keras", safe_mode=False)
        loaded(np.zeros((1, 1)))
    assert (tmp_path / CANARY).exists()


@pytest.mark.spark
def test_sql_in_names_is_text_in_the_tables(spark: Any, tmp_path: Path) -> None:
    from openpyxl import Workbook

    from eagle_spark.datasets.ingest import preprocess
    from eagle_spark.settings import PreprocessSettings
    from eagle_spark.spark.session import open_session
    from eagle_spark.tables import IMAGES

    folder, warehouse = tmp_path / "set", tmp_path / "warehouse"
    names = [f"{number} {SQL}.png" for number in range(3)]
    for number, name in enumerate(names):
        write_file(folder / SQL / "images" / name, make_tinted(number * 40))
    book = Workbook()
    book.active.append(["FILE NAME", "FORMAT", "SIZE", "URL", "PATIENT ID", SQL])
    for name in names:
        book.active.append([name, *REST[:-1], f"{name} {SQL}", SQL])
    book.save(folder / f"{SQL}.metadata.xlsx")
    with (tmp_path / "split.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "split"], *([name, "train"] for name in names)])
    settings = {"input": str(folder), "warehouse": str(warehouse), "source": SQL, "size": 64}
    result = preprocess(PreprocessSettings(**settings, split_file=str(tmp_path / "split.csv")))
    assert (result.accepted, result.by_class, result.rejected) == (3, {SQL: 3}, 0)
    with open_session("test", str(warehouse)) as session:
        rows = session.table(IMAGES.full_name).select("label", "source", "patient_id", "metadata")
        published = {
            (row.label, row.source, row.patient_id, row.metadata[SQL]) for row in rows.collect()
        }
    assert published == {(SQL, SQL, f"{name} {SQL}", SQL) for name in names}
