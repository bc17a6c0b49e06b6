"""What anybody can see of a job's result, and a reader who looks at it all the while."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from hashlib import sha256

from eagle_spark.errors import BundleError
from eagle_spark.io import list_folder, locate
from eagle_spark.model.bundle import open_bundle
from tests.chaos.fault_jobs import World
from tests.chaos.reader import polling

# What tells of the run, and of the file times that are a fault of their own.
OF_THE_RUN = ("run_id", "scored_at", "ingested_at", "rejected_at", "file_modified")

State = dict[str, list[str]]
"""What is published: by the name of a table (or folder) its rows (or files), hashed and sorted."""


def look(world: World, job: str, place: str) -> State:
    """Return what is published."""
    if job == "put":
        return {"files": _files(f"{world.live(place)}/put")}
    if job == "train":
        return _model(world, place)
    if job == "maintain":  # of the runs, those that were there before
        runs = _rows(world, place, "runs", where="job <> 'maintain'")
        return {"predictions": _rows(world, place, "predictions"), "runs": runs}
    names = ("images", "rejects") if job == "preprocess" else ("predictions",)
    return {name: _rows(world, place, name, OF_THE_RUN) for name in names}


def _rows(
    world: World, place: str, name: str, drop: tuple[str, ...] = (), where: str = "true"
) -> list[str]:
    from pyspark.errors import AnalysisException

    try:
        rows = world.spark.read.format("iceberg").load(f"{world.warehouse(place)}/cxr/{name}")
    except AnalysisException:  # no such table
        return []
    hashes = rows.where(where).drop(*drop).selectExpr("xxhash64(to_json(struct(*))) AS row")
    return sorted(str(row.row) for row in hashes.collect())


def _files(target: str) -> list[str]:
    storage, path = locate(target)
    if not storage.exists(path):
        return []
    found = []
    for entry in list_folder(target):
        content = storage.read(locate(entry.uri)[1], 1 << 26)
        found.append(f"{entry.uri.removeprefix(target)} {sha256(content).hexdigest()}")
    return sorted(found)


def _model(world: World, place: str) -> State:
    """Return the model folder, and the rows that its run has in the tables."""
    folder = f"{world.live(place)}/models"
    storage, path = locate(folder)
    names = {"model"} if storage.exists(f"{path}/model") else set()
    if storage.exists(path):
        names |= {e.uri.removeprefix(f"{folder}/").split("/")[0] for e in list_folder(folder)}
    found: State = {"model": sorted(names), "epochs": [], "metrics": [], "runs": []}
    if names != {"model"}:
        return found
    cache = world.folder / "models"
    cache.mkdir(mode=0o700, exist_ok=True)
    try:
        bundle = open_bundle(f"{folder}/model", cache=cache)
    except BundleError as error:
        return found | {"model": [str(error)]}
    mine = f"run_id = '{bundle.metadata['run_id']}'"
    return {
        "model": [bundle.model_id],
        "epochs": _rows(world, place, "epochs", ("run_id", "metrics"), mine),
        "metrics": _rows(world, place, "metrics", ("run_id",), mine),
        "runs": [f"{len(_rows(world, place, 'runs', (), mine))} row"],
    }


def small_files(world: World, place: str) -> int:
    """Return of how many files the published predictions are."""
    uri = f"{world.warehouse(place)}/cxr/predictions"
    return int(world.spark.read.format("iceberg").load(f"{uri}#files").count())


def is_whole(job: str, found: State, known: list[State]) -> bool:
    """Whether a look at the published result shows no half of a run."""
    if job == "put":  # each file is published for itself
        return set(found["files"]) <= set(known[-1]["files"])
    if job == "train":
        return found in known
    return all(rows in [state[name] for state in known] for name, rows in found.items())


def reading(
    world: World, job: str, place: str, known: list[State]
) -> AbstractContextManager[Counter[str]]:
    """Look at the published result all the while; count what was seen."""

    def read() -> str:
        try:
            found = look(world, job, place)
        except Exception as error:  # whatever it is, it is a finding
            # Without the number that py4j gives it, each counts with its like.
            told = re.sub(r"\bo\d+\.", "", " ".join(str(error).split()))
            return f"no answer: {told[:160]}"
        return "whole" if is_whole(job, found, known) else f"half: {_sizes(found)}"

    return polling(read)


def _sizes(state: State) -> Mapping[str, int]:
    return {name: len(rows) for name, rows in state.items()}
