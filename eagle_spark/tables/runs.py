"""One run of a job, and the versions that its result depends on."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from eagle_spark import __version__


@dataclass(frozen=True)
class Run:
    """One run of a job: who it is, when it began, and what it was told (a settings dataclass)."""

    job: str
    run_id: str
    started: datetime
    settings: Any

    @classmethod
    def begin(cls, job: str, settings: Any) -> Run:
        from uuid import uuid4

        started = datetime.now(timezone.utc)
        return cls(job, f"{job}-{started:%Y%m%dT%H%M%S}-{uuid4().hex[:8]}", started, settings)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return round((datetime.now(timezone.utc) - self.started).total_seconds(), 2)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on; what is not installed is left out."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"eagle_spark": __version__, "python": platform.python_version()}
    names = ("pyspark", "tensorflow", "keras", "openvino", "numpy", "pillow", "pyarrow")
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class Stages:
    """What of the run's seconds went where."""

    def __init__(self, run: Run) -> None:
        self._run, self._before = run, 0.0
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """Count the seconds since the last stage, or the start of the run, to this one."""
        now = self._run.seconds
        self.seconds[name] = round(now - self._before, 2)
        self._before = now
