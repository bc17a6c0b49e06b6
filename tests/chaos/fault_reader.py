"""The published result of a job, and a reader that polls it while the job runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from hashlib import sha256

from eagle_spark.errors import ModelError
from eagle_spark.io import list_folder, resolve
from eagle_spark.model.bundle import open_bundle
from tests.chaos.fault_jobs import Sandbox
from tests.chaos.reader import poll

# Columns that differ between runs; file times are the subject of a fault.
RUN_COLUMNS = ("run_id", "scored_at", "ingested_at", "file_modified")

State = dict[str, list[str]]
"""Name of a table or folder to its published rows or files, hashed and sorted."""


def read_published(sandbox: Sandbox, job: str, place: str) -> State:
    """Return the published result of the job."""
    if job == "put":
        return {"files": _files(f"{sandbox.live(place)}/put")}
    if job == "train":
        return _model(sandbox, place)
    if job == "maintain":  # of `runs` the rows of earlier jobs
        runs = _rows(sandbox, place, "runs", where="job <> 'maintain'")
        return {"predictions": _rows(sandbox, place, "predictions"), "runs": runs}
    name = "images" if job == "preprocess" else "predictions"
    return {name: _rows(sandbox, place, name, RUN_COLUMNS)}


def _rows(
    sandbox: Sandbox, place: str, name: str, drop: tuple[str, ...] = (), where: str = "true"
) -> list[str]:
    from pyspark.errors import AnalysisException

    try:
        rows = sandbox.spark.read.format("iceberg").load(f"{sandbox.warehouse(place)}/cxr/{name}")
    except AnalysisException:  # no such table
        return []
    hashes = rows.where(where).drop(*drop).selectExpr("xxhash64(to_json(struct(*))) AS row")
    return sorted(str(row.row) for row in hashes.collect())


def _files(target: str) -> list[str]:
    storage, path = resolve(target)
    if not storage.exists(path):
        return []
    lines = []
    for entry in list_folder(target):
        content = storage.read(resolve(entry.uri)[1], 1 << 26)
        lines.append(f"{entry.uri.removeprefix(target)} {sha256(content).hexdigest()}")
    return sorted(lines)


def _model(sandbox: Sandbox, place: str) -> State:
    """Return the model folder, and the rows of its run in the tables."""
    folder = f"{sandbox.live(place)}/models"
    storage, path = resolve(folder)
    names = {"model"} if storage.exists(f"{path}/model") else set()
    if storage.exists(path):
        names |= {e.uri.removeprefix(f"{folder}/").split("/")[0] for e in list_folder(folder)}
    state: State = {"model": sorted(names), "epochs": [], "metrics": [], "runs": []}
    if names != {"model"}:
        return state
    cache = sandbox.folder / "models"
    cache.mkdir(mode=0o700, exist_ok=True)
    try:
        bundle = open_bundle(f"{folder}/model", cache=cache)
    except ModelError as error:
        return state | {"model": [str(error)]}
    condition = f"run_id = '{bundle.metadata.run_id}'"
    return {
        "model": [bundle.metadata.model_id],
        "epochs": _rows(sandbox, place, "epochs", ("run_id", "metrics"), condition),
        "metrics": _rows(sandbox, place, "metrics", ("run_id",), condition),
        "runs": [f"{len(_rows(sandbox, place, 'runs', (), condition))} row"],
    }


def count_files(sandbox: Sandbox, place: str) -> int:
    """Return the number of data files of the published predictions."""
    uri = f"{sandbox.warehouse(place)}/cxr/predictions"
    return int(sandbox.spark.read.format("iceberg").load(f"{uri}#files").count())


def is_complete(job: str, published: State, complete: list[State]) -> bool:
    """Whether a published result contains no part of a run without the rest."""
    if job == "put":  # each file is published separately
        return set(published["files"]) <= set(complete[-1]["files"])
    if job == "train":
        return published in complete
    return all(rows in [state[name] for state in complete] for name, rows in published.items())


def poll_published(
    sandbox: Sandbox, job: str, place: str, complete: list[State]
) -> AbstractContextManager[Counter[str]]:
    """Poll the published result during the block; count the observations."""

    def read() -> str:
        try:
            state = read_published(sandbox, job, place)
        except Exception as error:  # any error is an observation
            # Without the numbers of py4j, equal errors count together.
            message = re.sub(r"\bo\d+\.", "", " ".join(str(error).split()))
            return f"no answer: {message[:160]}"
        return "whole" if is_complete(job, state, complete) else f"half: {_sizes(state)}"

    return poll(read)


def _sizes(state: State) -> Mapping[str, int]:
    return {name: len(rows) for name, rows in state.items()}
