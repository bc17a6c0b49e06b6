"""Progress of Spark tasks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING
from uuid import uuid4

from eagle_spark.progress import Progress

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@contextmanager
def watch_tasks(spark: SparkSession, label: str, total: int) -> Iterator[None]:
    """Show the progress of the Spark tasks that the block starts, once a second.

    Args:
        total: units of the finished work, shared evenly among the tasks.
    """
    context, group, ended = spark.sparkContext, uuid4().hex, Event()

    def poll(progress: Progress) -> None:
        tracker = context.statusTracker()
        while not ended.wait(1.0):
            jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
            stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
            tasks = sum(stage.numTasks for stage in stages if stage)
            done = sum(stage.numCompletedTasks for stage in stages if stage)
            if tasks:
                progress.update(total * done // tasks)

    with Progress(label, total) as progress:
        if not progress.is_visible or not total:
            yield
            return
        context.setJobGroup(group, label)
        watcher = Thread(target=poll, args=(progress,), daemon=True)
        watcher.start()
        try:
            yield
            progress.update(total)
        finally:
            ended.set()
            watcher.join(timeout=10)
