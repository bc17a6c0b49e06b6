"""Fixtures of several test folders."""

from __future__ import annotations

import hashlib
import json
import logging
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
# Sources of the cached models.
CACHE_SOURCES = (
    "requirements.lock",
    "eagle_spark/model",
    "eagle_spark/imaging",
    "tests/conftest.py",
)
CACHE_SOURCES += ("tests/helpers/tiny_model.py", "eagle_spark/datasets/synthetic/phantom.py")


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """One Spark application per worker; jobs that run inside it open new sessions."""
    from eagle_spark.spark.session import DEFAULT_CONF, LOCAL_CONF

    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    small = {
        "spark.master": "local[1,4]",  # a failed task is repeated, as in production
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
    for key, value in {**DEFAULT_CONF, **LOCAL_CONF, **small}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="session")
def run_job() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a job by spark-submit; the attribute `result` is its JSON."""

    def run(
        name: str, *options: object, conf: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        submit = Path(sys.executable).parent / "spark-submit"
        conf_words = [word for setting in conf for word in ("--conf", setting)]
        done = subprocess.run(
            [str(submit), *conf_words, str(ROOT / "submit" / f"{name}.py"), *map(str, options)],
            capture_output=True,
            text=True,
            timeout=JOB_TIMEOUT,
            start_new_session=True,  # without a terminal: no progress line
        )
        lines = done.stdout.strip().splitlines()
        done.result = json.loads(lines[-1]) if lines else None  # type: ignore[attr-defined]
        return done

    return run


@pytest.fixture(autouse=True)
def _reset_logging() -> None:
    """Let each test begin with the log as Python starts it: jobs and libraries change it."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)
    logging.raiseExceptions = True
    package = logging.getLogger("eagle_spark")
    package.handlers, package.propagate = [], True
    package.setLevel(logging.NOTSET)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("eagle_spark") and isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Capture what jobs log, from INFO up, whatever the level of the root logger is."""
    caplog.set_level(logging.INFO, "eagle_spark")
    return caplog


@pytest.fixture
def eagle() -> Callable[..., int]:
    """Run a tool of the command `eagle` in this process, and return its exit code."""
    from eagle_spark.cli.main import main

    return lambda *words: main([*map(str, words)])


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
    """Build a folder once for all workers and runs; return a new copy of it.

    `build(folder)` makes the folder. It is kept in `build/test-cache/<digest of its sources>`.
    """
    place = ROOT / "build" / "test-cache" / source_digest()
    for old in place.parent.glob("*"):
        if old != place:
            shutil.rmtree(old, ignore_errors=True)

    def get(name: str, build: Callable[[Path], None]) -> Path:
        place.mkdir(parents=True, exist_ok=True)
        entry, fresh = place / name, place / f".{name}"
        with FileLock(f"{entry}.lock", timeout=CACHE_TIMEOUT):
            if not entry.exists():
                shutil.rmtree(fresh, ignore_errors=True)
                build(fresh)
                fresh.rename(entry)
            return Path(shutil.copytree(entry, tmp_path_factory.mktemp("cached") / name))

    return get


@pytest.fixture(scope="session")
def model_folder(cached: Callable[..., Path]) -> Path:
    """A complete model folder with an untrained network that passes its gate."""
    from tests.helpers.tiny_model import write_model

    return cached("model", lambda folder: write_model(folder, MODEL_SIZE))


@pytest.fixture(scope="session")
def model_with_novelty(model_folder: Path, cached: Callable[..., Path]) -> Path:
    """The same model with novelty densities of synthetic X-rays."""

    def build(folder: Path) -> None:
        from tests.helpers.tiny_model import fit_review_thresholds, reseal

        shutil.copytree(model_folder, folder)
        reseal(folder, review=fit_review_thresholds(folder, MODEL_SIZE))

    return cached("novelty", build)


@pytest.fixture(scope="session")
def original_page_folder(
    model_with_novelty: Path,
    run_job: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder that `page_folder` copies."""
    from tests.helpers.page_folder import write_page_folder

    base = tmp_path_factory.mktemp("pages")
    write_page_folder(base / "page", model_with_novelty, run_job)
    return (base / "page").rename(base / "original")


@pytest.fixture
def page_folder(original_page_folder: Path) -> Path:
    """A new folder for the blocks of a page, see `write_page_folder`.

    Its path is always the same: the tables of a warehouse hold absolute URIs.
    """
    folder = original_page_folder.with_name("page")
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(original_page_folder, folder, symlinks=True))


@pytest.fixture(scope="session")
def exported_folder(model_folder: Path, cached: Callable[..., Path]) -> Path:
    """The same model with the formats of `eagle export`."""

    def build(folder: Path) -> None:
        from eagle_spark.model.add_exports import add_exports
        from eagle_spark.settings import ExportSettings

        shutil.copytree(model_folder, folder)
        add_exports(ExportSettings(model=str(folder)))

    return cached("exported", build)


@pytest.fixture(scope="session")
def other_model_folder(model_folder: Path) -> Path:
    """The same network with other class names: another model."""
    from tests.helpers.tiny_model import reseal

    folder = Path(shutil.copytree(model_folder, model_folder.with_name("other")))
    reseal(folder, classes=["D", "E", "F"])
    return folder
