"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
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

    def run(name: str, *options: object) -> subprocess.CompletedProcess[str]:
        submit = Path(sys.executable).parent / "spark-submit"
        done = subprocess.run(
            [str(submit), str(ROOT / "submit" / f"{name}.py"), *map(str, options)],
            capture_output=True,
            text=True,
            timeout=JOB_TIMEOUT,
        )
        lines = done.stdout.strip().splitlines()
        done.result = json.loads(lines[-1]) if lines else None  # type: ignore[attr-defined]
        return done

    return run
