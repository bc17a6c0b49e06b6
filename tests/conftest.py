"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

pytest_plugins = ["tests.helpers.tiers", "tests.helpers.timings"]

ROOT = Path(__file__).resolve().parent.parent
JOB_TIMEOUT = 900  # seconds
CACHE_TIMEOUT = 300
# What the cached models depend on.
CACHE_SOURCES = (
    "requirements.lock",
    "eagle_spark/model",
    "eagle_spark/imaging",
    "tests/conftest.py",
)
CACHE_SOURCES += ("tests/helpers/untrained.py", "eagle_spark/datasets/synthetic/phantom.py")


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """One Spark a worker for all tests; the jobs that run inside it take sessions of their own."""
    from eagle_spark.spark.session import LOCAL_RULES, RULES

    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    small = {
        "spark.master": "local[1]",
        "spark.driver.memory": "1g",
        # Small tables: the default of 200 shuffle tasks is waiting, nothing else.
        "spark.sql.shuffle.partitions": "1",
        # A handful of rows a query: plans that change while they run, and code made for each of
        # them, take longer than the query.
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    }
    builder = SparkSession.builder
    for key, value in {**RULES, **LOCAL_RULES, **small}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="session")
def run_job() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a job as a user does, by this environment's spark-submit; adds `.result`, its JSON."""

    def run(
        name: str, *options: object, conf: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        submit = Path(sys.executable).parent / "spark-submit"
        given = [word for setting in conf for word in ("--conf", setting)]
        done = subprocess.run(
            [str(submit), *given, str(ROOT / "submit" / f"{name}.py"), *map(str, options)],
            capture_output=True,
            text=True,
            timeout=JOB_TIMEOUT,
            start_new_session=True,  # no terminal: its progress is not for ours
        )
        lines = done.stdout.strip().splitlines()
        done.result = json.loads(lines[-1]) if lines else None  # type: ignore[attr-defined]
        return done

    return run


MODEL_SIZE = 64


def source_digest() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for name in CACHE_SOURCES:
        source = ROOT / name
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build a folder once for all workers and runs; return a copy of it of this worker's own.

    `build(folder)` makes the folder. It is kept in `build/test-cache/<digest of its sources>`.
    """
    place = ROOT / "build" / "test-cache" / source_digest()
    for old in place.parent.glob("*"):
        if old != place:
            shutil.rmtree(old, ignore_errors=True)

    def get(name: str, build: Callable[[Path], None]) -> Path:
        place.mkdir(parents=True, exist_ok=True)
        kept, fresh = place / name, place / f".{name}"
        with FileLock(f"{kept}.lock", timeout=CACHE_TIMEOUT):
            if not kept.exists():
                shutil.rmtree(fresh, ignore_errors=True)
                build(fresh)
                fresh.rename(kept)
            return Path(shutil.copytree(kept, tmp_path_factory.mktemp("cached") / name))

    return get


@pytest.fixture(scope="session")
def model_folder(cached: Callable[..., Path]) -> Path:
    """A whole model folder: a network that knows nothing, but runs, exports and passes its gate."""
    from tests.helpers.untrained import write_model

    return cached("model", lambda folder: write_model(folder, MODEL_SIZE))


@pytest.fixture(scope="session")
def watchful_folder(model_folder: Path, cached: Callable[..., Path]) -> Path:
    """The same model, which also knows what drawn X-rays look like."""

    def build(folder: Path) -> None:
        from tests.helpers.untrained import fit_to_drawn_images, reseal

        shutil.copytree(model_folder, folder)
        reseal(folder, review=fit_to_drawn_images(folder, MODEL_SIZE))

    return cached("watchful", build)


@pytest.fixture(scope="session")
def exported_folder(model_folder: Path, cached: Callable[..., Path]) -> Path:
    """The same model, with what `eagle-export` adds."""

    def build(folder: Path) -> None:
        from eagle_spark.model.add_exports import add_exports
        from eagle_spark.settings import ExportSettings

        shutil.copytree(model_folder, folder)
        add_exports(ExportSettings(model=str(folder)))

    return cached("exported", build)


@pytest.fixture(scope="session")
def other_model_folder(model_folder: Path) -> Path:
    """The same network with other class names: another model."""
    from tests.helpers.untrained import reseal

    folder = Path(shutil.copytree(model_folder, model_folder.with_name("other")))
    reseal(folder, classes=["D", "E", "F"])
    return folder
