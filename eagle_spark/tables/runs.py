"""Runs of jobs: identity, time, versions, and their rows in the table `runs`."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import datetime, timezone
from typing import Generic, TypeVar

from pydantic import BaseModel

from eagle_spark import __version__

S = TypeVar("S")


@dataclass(frozen=True)
class Run(Generic[S]):
    """One run of a job: its id, its start (UTC) and its settings."""

    job: str
    run_id: str
    started: datetime
    settings: S

    @classmethod
    def begin(cls, job: str, settings: S) -> Run[S]:
        from uuid import uuid4

        started = datetime.now(timezone.utc)
        return cls(job, f"{job}-{started:%Y%m%dT%H%M%S}-{uuid4().hex[:8]}", started, settings)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return round((datetime.now(timezone.utc) - self.started).total_seconds(), 2)

    def record(
        self, result: object, *, model_id: str | None = None, distribution: str | None = None
    ) -> RunRecord:
        """Return the row of this run in `runs`.

        Args:
            result: dataclass of the job's figures.
            model_id: of the model that the run made or used.
            distribution: of the rows that the run scored, JSON.
        """
        return RunRecord(
            run_id=self.run_id,
            job=self.job,
            started_at=self.started,
            seconds=self.seconds,
            settings=to_json(self.settings),
            result=to_json(result),
            model_id=model_id,
            versions=versions(),
            distribution=distribution,
        )


@dataclass(frozen=True)
class RunRecord:
    """A row of the table `runs`, without its snapshot.

    Attributes:
        settings: JSON.
        result: JSON of the job's figures.
        distribution: JSON of the distribution of the rows that a run of `score` scored.
    """

    run_id: str
    job: str
    started_at: datetime
    seconds: float
    settings: str
    result: str
    model_id: str | None
    versions: Mapping[str, str]
    distribution: str | None = None

    def dumps(self) -> str:
        """Return the record as JSON, for the summary of the snapshot that the run publishes."""
        return json.dumps({**asdict(self), "started_at": self.started_at.isoformat()})

    @classmethod
    def loads(cls, text: str) -> RunRecord:
        """Return the record that `dumps` of any version wrote; keys of later ones are ignored."""
        values = {"distribution": None, **json.loads(text)}
        values["started_at"] = datetime.fromisoformat(values["started_at"])
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def to_json(value: object) -> str:
    """Return settings, or the dataclass of a result, as one JSON object."""
    if isinstance(value, BaseModel):
        return json.dumps(value.model_dump())
    assert is_dataclass(value)
    assert not isinstance(value, type)
    return json.dumps(asdict(value), allow_nan=False, default=str)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, of the packages that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    installed = {"eagle_spark": __version__, "python": platform.python_version()}
    names = ("pyspark", "tensorflow", "keras", "openvino", "numpy", "pillow", "pyarrow")
    for name in names:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


class StageTimer:
    """Wall time per stage of a run, seconds."""

    def __init__(self, run: Run[S]) -> None:
        self._started, self._before = run.started, 0.0
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """End a stage; it began where the stage before it ended."""
        now = (datetime.now(timezone.utc) - self._started).total_seconds()
        self.seconds[name] = round(now - self._before, 2)
        self._before = now
