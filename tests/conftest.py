"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
JOB_TIMEOUT = 900  # seconds


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """One Spark for all tests; the jobs that run inside it take sessions of their own."""
    from eagle_spark.session import LOCAL_RULES, RULES

    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for key, value in {**RULES, **LOCAL_RULES, "spark.master": "local[2]"}.items():
        builder = builder.config(key, value)
    # Small tables: the default of 200 shuffle tasks is waiting, nothing else.
    session = builder.config("spark.sql.shuffle.partitions", "4").getOrCreate()
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


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder: a network that knows nothing, but runs, exports and passes its gate."""
    from untrained import write_model

    folder = tmp_path_factory.mktemp("model") / "model"
    write_model(folder, MODEL_SIZE)
    return folder


@pytest.fixture(scope="session")
def watchful_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, which also knows what drawn X-rays look like."""
    import shutil

    import numpy as np

    from eagle_spark.dataset.sample import write_unlabelled
    from eagle_spark.images.decode import read_radiograph
    from eagle_spark.model.bundle import open_bundle, seal
    from eagle_spark.model.engines import load_engine
    from eagle_spark.model.metadata import METADATA
    from eagle_spark.model.novelty import NOVELTY, detail, fit_novelty, write_novelty
    from eagle_spark.model.review import Limits

    drawn = tmp_path_factory.mktemp("drawn")
    write_unlabelled(drawn, 90, 11)
    sound = [path for path in sorted(drawn.rglob("*.png")) if path.stat().st_size > 10_000]
    pixels = np.stack(
        [
            read_radiograph(path.read_bytes(), MODEL_SIZE).pixels
            for path in sound
            if "truncated" not in path.name
        ]
    )
    folder = model_folder.with_name("watchful")
    shutil.copytree(model_folder, folder)
    bundle = open_bundle(str(folder))
    statistics = load_engine(bundle, "openvino", 1).predict(pixels).statistics
    # Limits come from images that the densities were not fitted to.
    fitted = slice(None, 2 * len(pixels) // 3)
    novelty = fit_novelty({"detail": detail(pixels[fitted]), "features": statistics[fitted]})
    write_novelty(novelty, folder / NOVELTY)
    limits = {
        name: (float(np.median(found)), 2 * float(found.max()))
        for name, found in novelty.surprise(pixels, statistics).items()
    }
    card = dict(bundle.metadata) | {"review": Limits(0.5, limits, {"area": (0.0, 0.9)}).written()}
    (folder / METADATA).unlink()
    seal(folder, {key: value for key, value in card.items() if key not in ("model_id", "digests")})
    return folder


@pytest.fixture(scope="session")
def exported_folder(model_folder: Path) -> Path:
    """The same model, with what `eagle-export` adds."""
    import shutil

    from eagle_spark.model.portable import add_exports
    from eagle_spark.settings import ExportSettings

    folder = model_folder.with_name("exported")
    shutil.copytree(model_folder, folder)
    add_exports(ExportSettings(model=str(folder)))
    return folder


@pytest.fixture(scope="session")
def other_model_folder(model_folder: Path) -> Path:
    """The same network with other class names: another model."""
    import shutil

    from eagle_spark.model.bundle import open_bundle, seal
    from eagle_spark.model.metadata import METADATA

    folder = model_folder.with_name("other")
    shutil.copytree(model_folder, folder)
    card = dict(open_bundle(str(folder)).metadata) | {"classes": ["D", "E", "F"]}
    (folder / METADATA).unlink()
    seal(folder, {key: value for key, value in card.items() if key not in ("model_id", "digests")})
    return folder
