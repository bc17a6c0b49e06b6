"""Fixtures of the tests of scoring."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.datasets.synthetic.sample import write_unlabelled
from eagle_spark.scoring import job as job
from eagle_spark.settings import ScoreSettings


@pytest.fixture
def score(spark: Any, model_folder: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Score `tmp_path/images` into `tmp_path/warehouse`."""

    def run(**options: Any) -> dict[str, Any]:
        places = {name: tmp_path / name for name in ("images", "warehouse")}
        given = {"model": model_folder} | places | options
        chosen = {
            key: str(value) if isinstance(value, Path) else value for key, value in given.items()
        }
        return asdict(job.score(ScoreSettings(**chosen)))

    return run


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "images"
    write_unlabelled(folder, 12, 5)
    return folder


@pytest.fixture
def images(drawn: Path, tmp_path: Path) -> Path:
    """12 sound images and 4 broken ones in nested folders."""
    return Path(shutil.copytree(drawn, tmp_path / "images"))


@pytest.fixture(params=["files", "spark"])
def writer(request: pytest.FixtureRequest) -> str:
    """Each writer of the table's data files."""
    return str(request.param)
