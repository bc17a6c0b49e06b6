"""`score --plan`: the figures are those of the run that follows, and no table changes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.io.lock import lease
from eagle_spark.model.bundle import open_bundle
from eagle_spark.scoring import chunks
from eagle_spark.scoring.context import name_branch, name_staging
from eagle_spark.scoring.plan import ScorePlan
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS, Warehouse
from tests.helpers.prediction_rows import rejected_row, to_rows
from tests.helpers.processes import run_eagle
from tests.helpers.score_runs import die_at, is_balanced, list_valid_images, query

pytestmark = [pytest.mark.spark, pytest.mark.train]

Score = Callable[..., dict[str, Any]]
SAME = ("listed", "already_scored", "already_rejected")


@pytest.fixture
def plan(score: Score, tmp_path: Path) -> Score:
    """Plan a run of `score`; no file of the warehouse may change."""

    def run(**options: Any) -> dict[str, Any]:
        before = list_files(tmp_path / "warehouse")
        figures = score(plan=True, **options)
        assert list_files(tmp_path / "warehouse") == before
        return figures

    return run


def list_files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def select(figures: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: figures[name] for name in names}


@pytest.mark.slow("the first plan and the first run of score in the process")
def test_in_an_empty_warehouse_every_file_is_new(
    score: Score, plan: Score, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(chunk=6)
    assert list_files(tmp_path / "warehouse") == {}
    assert select(planned, *SAME) == dict(zip(SAME, (16, 0, 0), strict=True))
    assert select(planned, "new", "resumed", "outdated") == {"new": 16, "resumed": 0, "outdated": 0}
    assert select(planned, "images_per_second", "seconds", "from_run") == dict.fromkeys(
        ("images_per_second", "seconds", "from_run")
    )
    original, tasks = chunks.score_files, []

    def count_tasks(*arguments: Any) -> Any:
        reports = original(*arguments)
        tasks.append(len(reports))
        return reports

    monkeypatch.setattr(chunks, "score_files", count_tasks)
    result = score(chunk=6)
    assert select(result, *SAME) == select(planned, *SAME)
    assert planned["new"] == result["scored"] + result["rejected"]
    assert (planned["chunks"], planned["tasks"]) == (len(tasks), sum(tasks)) == (3, 3)


@pytest.mark.slow("two runs of score and two plans")
def test_on_a_second_night_new_changed_and_retried_files_are_counted(
    score: Score, plan: Score, images: Path, tmp_path: Path
) -> None:
    changed, other, *_ = list_valid_images(images)
    (images / "link.png").symlink_to(tmp_path / "nowhere.png")  # unreadable: each run retries it
    first = score()
    empty = next(images.rglob("empty.png"))
    shutil.copy(other, images / "new.png")
    shutil.copy(other, changed)
    shutil.copy(other, empty)
    retried = plan(retry_rejected=True)
    assert select(retried, "new", "outdated") == {"new": 7, "outdated": 6}
    planned = plan()
    result = score()
    assert is_balanced(result)
    assert select(planned, *SAME) == select(result, *SAME)
    assert select(planned, *SAME) == dict(zip(SAME, (18, 11, 4), strict=True))
    rows = query(tmp_path / "warehouse")
    assert planned["new"] == sum(row.run_id == result["run_id"] for row in rows) == 4
    assert (planned["outdated"], planned["resumed"]) == (3, 0)
    assert planned["from_run"] == first["run_id"]
    rate = 12 / first["stage_seconds"]["score"]
    assert planned["images_per_second"] == round(rate, 1)
    other_seconds = first["seconds"] - first["stage_seconds"]["score"]
    assert planned["seconds"] == pytest.approx(other_seconds + 4 / rate, abs=0.1)


def test_beside_an_active_run_its_lease_stays(
    plan: Score, images: Path, model_folder: Path, tmp_path: Path
) -> None:
    branch = name_branch(open_bundle(str(model_folder)).metadata.model_id, str(images))
    uri = f"{name_staging(str(tmp_path / 'warehouse'))}/{branch}.lease"
    with lease(uri, "active", stale_seconds=3600) as active:
        assert plan()["new"] == 16
        active.check()


@pytest.mark.slow("two runs of score, one of three chunks, and two plans")
def test_rows_of_a_killed_run_are_not_new(
    score: Score, plan: Score, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = shutil.copytree(images, tmp_path / "elsewhere")
    kill_at_the_third_chunk(score, monkeypatch)
    planned = plan(chunk=5)
    assert select(planned, *SAME) == dict(zip(SAME, (16, 0, 0), strict=True))
    assert select(planned, "new", "resumed", "outdated") == {"new": 6, "resumed": 10, "outdated": 0}
    assert (planned["chunks"], planned["from_run"]) == (2, None)
    score(images=elsewhere)  # `main` has moved, and holds rows of other paths of the model
    again = plan(chunk=5)
    figures = ("chunks", "tasks", "new", "resumed", "outdated", *SAME)
    assert select(again, *figures) == select(planned, *figures)
    result = score(chunk=5)
    assert select(result, *SAME) == select(planned, *SAME)
    paths = {path.as_uri() for path in images.rglob("*")}
    rows = [row for row in query(tmp_path / "warehouse") if row.path in paths]
    written = Counter(row.run_id == result["run_id"] for row in rows)
    assert written == {True: planned["new"], False: planned["resumed"]}


@pytest.mark.slow("three runs of score, one of three chunks")
def test_published_rows_and_those_of_a_killed_run_are_counted_apart(
    score: Score, plan: Score, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score()
    changed, *others = list_valid_images(images)
    for number, other in zip(range(10), cycle(others), strict=False):
        shutil.copy(other, images / f"new-{number}.png")
    shutil.copy(others[0], changed)
    kill_at_the_third_chunk(score, monkeypatch)
    planned = plan(chunk=5)
    result = score(chunk=5)
    assert select(planned, *SAME) == select(result, *SAME)
    assert select(planned, *SAME) == dict(zip(SAME, (26, 11, 4), strict=True))
    assert select(planned, "new", "resumed", "outdated") == {"new": 1, "resumed": 10, "outdated": 0}
    rows = query(tmp_path / "warehouse")
    assert sum(row.run_id == result["run_id"] for row in rows) == planned["new"]
    assert plan()["from_run"] != result["run_id"]  # it counts the images of the killed run


def kill_at_the_third_chunk(score: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a branch with the rows of two chunks of five files."""
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "score_files", die_at(3, chunks.score_files))
        with pytest.raises(KeyboardInterrupt):
            score(chunk=5)


@pytest.mark.slow("a job by its command")
def test_the_last_line_of_the_command_is_the_plan(
    images: Path, model_folder: Path, tmp_path: Path
) -> None:
    places = {"images": images, "model": model_folder, "warehouse": tmp_path / "warehouse"}
    options = [word for name, place in places.items() for word in (f"--{name}", place)]
    done = run_eagle("score", "--plan", *options, timeout=200)
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout.splitlines()[-1])
    assert list(planned) == [field.name for field in fields(ScorePlan)]
    assert (planned["listed"], planned["new"]) == (16, 16)


@pytest.mark.parametrize("has_moved", [False, True])
def test_a_preview_has_the_rows_of_the_resumed_branch(
    spark: Any, tmp_path: Path, has_moved: bool
) -> None:
    with open_session("test", str(tmp_path / "warehouse")) as session:
        warehouse = Warehouse(session)
        warehouse.create_or_migrate(PREDICTIONS)

        def append(run_id: str, paths: str, branch: str = "main") -> None:
            rows = to_rows([{**rejected_row(path), "run_id": run_id} for path in paths])
            warehouse.append(
                PREDICTIONS, session.createDataFrame(rows, PREDICTIONS.schema()), branch
            )

        append("first", "ab")
        warehouse.create_branch(PREDICTIONS, "run")
        warehouse.delete(PREDICTIONS, "path = 'a'", "run")
        append("killed", "ac", "run")
        if has_moved:
            append("other", "d")
        preview = warehouse.preview_branch(PREDICTIONS, "run", "model_id = 'm'")
        assert warehouse.resume_branch(PREDICTIONS, "run", "model_id = 'm'") is has_moved
        branch = read_rows(warehouse.read(PREDICTIONS, "run"))
        warehouse.iceberg(PREDICTIONS).publish("run")
        assert read_rows(preview.rows) == branch  # the branch is dropped, and its rows stay
        assert read_rows(preview.unpublished) == [("a", "killed"), ("c", "killed")]
        published = [("a", "first"), ("b", "first"), ("d", "other")]
        assert read_rows(preview.published) == (published if has_moved else published[:2])


def read_rows(rows: Any) -> list[tuple[str, str]]:
    return sorted((row.path, row.run_id) for row in rows.collect())
