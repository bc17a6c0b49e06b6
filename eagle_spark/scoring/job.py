"""The score job: what is new in a folder goes through the model into `predictions`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from eagle_spark.errors import (
    LOOK_FIRST,
    PASSING,
    MainMoved,
    TooManyFailures,
    UnbalancedRun,
)
from eagle_spark.io import absolute_uri, join, locate
from eagle_spark.io.lock import Lease, lease
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import choose_engine
from eagle_spark.scoring.flags import count_flags
from eagle_spark.scoring.listing import list_images, read_listing, spool_listing
from eagle_spark.scoring.mask_files import Masks, check_masks_folder, write_masks
from eagle_spark.scoring.monitor import (
    largest,
    shift_of_runs,
    shifts_before,
    untold_runs,
    warn,
)
from eagle_spark.scoring.predict import STAGES, Predictor, Shared, load_model
from eagle_spark.scoring.rows import PREDICTION, SAID, SAME, of_runs, sound
from eagle_spark.settings import ScoreSettings
from eagle_spark.spark.preload import warm_workers
from eagle_spark.spark.progress import watch_tasks
from eagle_spark.spark.session import check_warehouse, open_session, tasks_for, threads_per_task
from eagle_spark.tables import PREDICTIONS, Run, Stages, Warehouse
from eagle_spark.testing.failpoints import reached

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

RETRIES = 5  # of publishing, where other runs come first
_FILE = ["path", "file_length", "file_modified"]
_SCORED = "status = 'scored'"


def score(settings: ScoreSettings) -> dict[str, Any]:
    """Run the job and return its figures.

    Raises:
        BundleError: when the model folder is incomplete or altered, or has no such engine.
        InputError: when the folder of images cannot be listed.
        AlreadyRunning: when another run scores the same folder with the same model.
        TooManyFailures: when more than `max_failure_rate` of the listed files are rejected.
        UnbalancedRun: when the audit fails; nothing is published.
        OutputError: when masks cannot be written; all else is done.
    """
    run = Run.begin("score", settings)
    bundle = open_bundle(settings.model)
    engine = choose_engine(bundle, settings.engine)
    next(list_images(settings.images), None)  # what is not there is said before Spark starts
    if settings.masks_out:
        check_masks_folder(settings.images, settings.masks_out)
    # One branch a model and folder: what a killed run left there is gone on with.
    folder = sha256(absolute_uri(settings.images).encode()).hexdigest()
    branch = f"score_{bundle.model_id[:16]}_{folder[:8]}"
    place = join(absolute_uri(settings.warehouse), "cxr")
    check_warehouse(settings.warehouse)
    with (
        lease(join(place, "_staging", f"{branch}.lease"), run.run_id) as held,
        open_session("score", settings.warehouse) as spark,
    ):
        staging = join(place, "_staging", run.run_id)
        try:
            night = Night(spark, run, bundle, engine, branch, staging, held)
            with warm_workers(spark, partial(load_model, **night.model)):
                return night.work()
        finally:
            storage, path = locate(staging)
            storage.delete(path)


Counts = dict[str, int]  # files by status


class Night:
    """One run of the job over one folder with one model."""

    def __init__(
        self,
        spark: SparkSession,
        run: Run,
        bundle: Bundle,
        engine: str,
        branch: str,
        staging: str,
        held: Lease,
    ) -> None:
        self.lease = held
        self.spark, self.run, self.bundle, self.engine = spark, run, bundle, engine
        self.branch, self.staging = branch, staging
        self.settings: ScoreSettings = run.settings
        self.warehouse = Warehouse(spark)
        self.mine = f"model_id = '{bundle.model_id}'"
        self.clocks = {name: spark.sparkContext.accumulator(0.0) for name in STAGES}
        self.model: dict[str, Any] = {
            "model": absolute_uri(self.settings.model),
            "model_id": bundle.model_id,
            "engine": engine,
            "threads": threads_per_task(spark),
        }
        self.known: Shared | None = None
        self.same_bytes = 0
        self.fresh: list[str] = []  # runs whose rows are published tonight
        self.audited: int | None = None

    def work(self) -> dict[str, Any]:
        """List, score chunk by chunk, audit, publish; return the figures."""
        self.lease.check()
        total = spool_listing(list_images(self.settings.images), self.staging)
        stages = Stages(self.run)
        stages.end("list")
        self.warehouse.ensure(PREDICTIONS)
        before, after = Counts(), Counts()
        if self.warehouse.branches(PREDICTIONS):  # `main` is none before the first rows
            self.warehouse.resume_branch(PREDICTIONS, self.branch, self.mine)
            before, after = self.compare()
            if sum(after.values()) < total:
                self.known = self.scored_images()
        else:
            self.warehouse.open_branch(PREDICTIONS, self.branch)
        stages.end("compare")
        reached("before write")
        with watch_tasks(self.spark, "score", total - sum(after.values())):
            while (done := sum(after.values())) < total:
                self.score_chunk()
                after = self.counts(self.branch)
                if sum(after.values()) <= done:
                    raise UnbalancedRun(f"listed {total} files, but only {done} got a row")
        stages.end("score")
        reached("written")
        self.check(total)
        stages.end("audit")
        snapshot = self.publish(total)
        stages.end("publish")
        self.take_up()
        shift = self.shift()
        stages.end("shift")
        masks = self.write_masks()
        stages.end("masks")
        seconds = self.run.seconds
        scored = after.get("scored", 0) - before.get("scored", 0)
        result: dict[str, Any] = {
            "listed": total,
            "already_scored": before.get("scored", 0),
            "scored": scored,
            "rejected": after.get("rejected", 0),
            "already_rejected": before.get("rejected", 0),
            "same_bytes": self.same_bytes,
            "masks_written": masks.written,
            "masks_failed": masks.failed,
            "seconds": seconds,
            "images_per_second": round(scored / seconds, 1),
            "engine": self.engine,
            "shift": max(shift.get("training", {}).values(), default=None),
            "shift_from_nights": max(shift.get("nights", {}).values(), default=None),
            "shift_by": shift,
            "flagged": count_flags(self.tonight()),
            "exit_code": LOOK_FIRST if warn(shift) else 0,
            "stage_seconds": stages.seconds,
            "task_seconds": {name: round(clock.value, 3) for name, clock in self.clocks.items()},
            "model_id": self.bundle.model_id,
            "run_id": self.run.run_id,
            "published_runs": self.fresh,
            "application": self.spark.sparkContext.applicationId,
            "snapshot_id": snapshot,
        }
        if problem := masks.problem:
            result["exit_code"] = problem.exit_code = result["exit_code"] or problem.exit_code
            result["error"], problem.figures = str(problem), result
        self.warehouse.record_run(
            self.run, result, snapshot_id=snapshot, model_id=self.bundle.model_id
        )
        if problem:
            raise problem
        return result

    def listing(self) -> DataFrame:
        return read_listing(self.spark, self.staging)

    def rows(self, branch: str) -> DataFrame:
        """Return this model's rows for the files as they are listed now."""
        rows = self.warehouse.read(PREDICTIONS, branch).where(self.mine)
        return rows.join(self.listing(), _FILE, "left_semi")

    def counts(self, branch: str) -> Counts:
        rows = self.rows(branch).groupBy("status").count().collect()
        return _counted((row.status, row["count"]) for row in rows)

    def compare(self) -> tuple[Counts, Counts]:
        """Drop, on the branch, this model's rows that no longer hold; count what has a row.

        What goes: rows of files that changed since; of files that could not be read then or had no
        decoder, as that may pass; with `--retry-rejected` all that were rejected; and those that
        stand twice, as two runs at once may leave them.

        Returns:
            The listed files by status, those that have a row on `main`, and on the branch.
        """
        from pyspark.sql.functions import expr

        doubtful = [f"status = '{SAME}'"]
        doubtful += ["status = 'rejected'"] if self.settings.retry_rejected else []
        doubtful += [f"reason = '{reason}'" for reason in PASSING]
        rows = self.warehouse.read(PREDICTIONS, self.branch).where(self.mine)
        now = self.listing().selectExpr(
            "path", "file_length AS length", "file_modified AS modified"
        )
        other = "NOT (file_length <=> length AND file_modified <=> modified)"
        by_path = (
            rows.join(now, "path")
            .groupBy("path")
            .agg(
                expr(f"bool_or({other}) AS changed"),
                expr(f"count(*) > 1 OR bool_or({other} OR {' OR '.join(doubtful)}) AS outdated"),
                expr("any_value(status) AS status"),
            )
        )
        found = by_path.groupBy("status", "changed", "outdated").count().collect()
        main, branch = (self.warehouse.snapshot(PREDICTIONS, ref) for ref in ("main", self.branch))
        before: Counts = {}
        if main is not None and main == branch:
            before = _counted((row.status, row["count"]) for row in found if not row.changed)
        elif main is not None:
            before = self.counts("main")
        if any(row.outdated for row in found):
            by_path.where("outdated").select("path").createOrReplaceTempView("eagle_outdated")
            gone = f"{self.mine} AND path IN (SELECT path FROM eagle_outdated)"
            self.warehouse.remove(PREDICTIONS, gone, self.branch)
        return before, _counted((row.status, row["count"]) for row in found if not row.outdated)

    def score_chunk(self) -> None:
        """Score the next files that have no row yet, and commit their rows to the branch."""
        done = self.warehouse.read(PREDICTIONS, self.branch).where(self.mine)
        left = self.listing().join(done, _FILE, "left_anti")
        left = left.orderBy("archive", "position", "path")
        # Through the driver, a chunk at most: what is scored is fixed before the branch grows.
        chunk = left.limit(self.settings.chunk).toArrow()
        # Members of an archive in the order in which they stand there. Files with the same bytes
        # are of one length, and so mostly in one task.
        order = ("archive", "position", "file_length", "path")
        chunk = chunk.sort_by([(name, "ascending") for name in order])
        tasks = tasks_for(self.spark, chunk.num_rows)
        task = pa.array(np.arange(chunk.num_rows) * tasks // max(chunk.num_rows, 1), pa.int32())
        from pyspark.sql.functions import col
        from pyspark.sql.pandas.types import from_arrow_schema

        files = self.spark.createDataFrame(chunk.append_column("task", task))
        files = files.repartitionById(tasks, col("task")).drop("task")
        predictor = Predictor(
            **self.model,
            run_id=self.run.run_id,
            keep_patient_id=self.settings.keep_patient_id,
            known=self.known,
            clocks=self.clocks,
        )
        rows = files.sortWithinPartitions(*order).mapInArrow(
            predictor, from_arrow_schema(PREDICTION)
        )
        self.warehouse.append(PREDICTIONS, rows, self.branch)
        if self.known:
            self.fill_same()

    def scored_images(self) -> Shared | None:
        """Return what is told to workers of the images that have a row: 8 bytes of each id.

        Rows that the branch has dropped count too: an archive that was replaced mostly holds the
        same images. Those that a killed run left there do not: the rest is asked about in the
        batches of an undisturbed run, and so to the same digits.
        """
        rows = self.warehouse.read(PREDICTIONS).where(f"{self.mine} AND {_SCORED}")
        # Signed, as SQL has no other numbers of 64 bits.
        keys = rows.selectExpr("CAST(conv(substr(image_id, 1, 16), 16, -10) AS BIGINT) AS key")
        found = keys.toArrow()["key"].to_numpy().view(np.uint64)
        return self.spark.sparkContext.broadcast(np.sort(found)) if len(found) else None

    def fill_same(self) -> None:
        """Give rows of bytes that had been scored before what was said of them.

        Where there is none after all, as ids only began alike, they are dropped and scored.
        """
        if not (count := self.counts(self.branch).get(SAME, 0)):
            return
        same = f"{self.mine} AND status = '{SAME}'"
        self.warehouse.merge(
            PREDICTIONS,
            self.branch,
            f"SELECT image_id, any_value(struct({', '.join(SAID)})) AS said "
            f"FROM {{main}} WHERE {self.mine} AND {_SCORED} "
            f"AND image_id IN (SELECT image_id FROM {{branch}} WHERE {same}) GROUP BY image_id",
            f"kept.image_id = found.image_id AND kept.{self.mine} AND kept.status = '{SAME}'",
            {"status": "'scored'"} | {name: f"found.said.{name}" for name in SAID},
        )
        left = self.counts(self.branch).get(SAME, 0)
        self.same_bytes += count - left
        if left:
            self.warehouse.remove(PREDICTIONS, same, self.branch)
            self.known = None
            self.score_chunk()

    def check(self, total: int) -> None:
        """Hold the branch against what was listed.

        Raises:
            UnbalancedRun: when a file has no row or two, or a row does not hold together.
            TooManyFailures: when too large a share was rejected.
        """
        self.audited = self.warehouse.snapshot(PREDICTIONS, self.branch)
        after = self.counts(self.branch)
        if sum(after.values()) != total:
            raise UnbalancedRun(f"listed {total} files; the branch has {after}")
        rows = self.warehouse.read(PREDICTIONS, self.branch).where(self.mine)
        ((count, paths),) = rows.selectExpr("count(path)", "count(DISTINCT path)").collect()
        if count != paths:
            raise UnbalancedRun(f"{count} rows of this model for {paths} files")
        # What `main` has was audited when it was published.
        published = self.warehouse.read(PREDICTIONS).where(self.mine).select("run_id")
        self.fresh = [row.run_id for row in rows.select("run_id").subtract(published).collect()]
        fresh = of_runs(rows, self.fresh)
        holds = sound(self.bundle.size)
        ((unsound,),) = fresh.selectExpr(f"min(CASE WHEN NOT ({holds}) THEN path END)").collect()
        if unsound:
            raise UnbalancedRun(f"the row of {unsound} does not hold together")
        rate, allowed = after.get("rejected", 0) / max(total, 1), self.settings.max_failure_rate
        if rate > allowed:
            raise TooManyFailures(
                f"{after['rejected']} of {total} files rejected, more than --max-failure-rate "
                f"{allowed}; nothing was published, branch {self.branch} keeps what was found"
            )

    def tonight(self) -> DataFrame:
        """Return the rows that were published tonight."""
        return of_runs(self.warehouse.read(PREDICTIONS).where(self.mine), self.fresh)

    def take_up(self) -> None:
        """Take for tonight's what a run published of these files and, killed, did not tell of."""
        published = self.warehouse.read(PREDICTIONS).where(self.mine)
        if left := set(untold_runs(self.warehouse, published, self.mine)) - set(self.fresh):
            here = of_runs(self.rows("main"), sorted(left)).select("run_id").distinct()
            self.fresh += [row.run_id for row in here.collect()]

    def shift(self) -> dict[str, dict[str, float]]:
        """Hold what was published tonight against the validation split and earlier nights."""
        training = self.bundle.metadata.get("reference", {})
        given = (self.warehouse, self.mine, self.fresh, training, self.bundle.classes)
        return largest([shift_of_runs(*given), *shifts_before(self.spark, self.warehouse)])

    def write_masks(self) -> Masks:
        """Write what `--masks-out` lacks.

        The night is published by now: its run is recorded before anything is raised.
        """
        if not self.settings.masks_out:
            return Masks()
        rows = self.rows("main").where(_SCORED).select("path", "mask", "scored_at")
        told = (self.settings.images, self.settings.masks_out, self.bundle.model_id, self.staging)
        return write_masks(rows, *told)

    def publish(self, total: int) -> int | None:
        """Publish what was audited; when another run was first, carry the rows over and retry."""
        for _ in range(RETRIES):
            try:
                return self.publish_audited()
            except MainMoved:
                self.warehouse.resume_branch(PREDICTIONS, self.branch, self.mine)
                self.check(total)
        return self.publish_audited()

    def publish_audited(self) -> int | None:
        """Publish the branch, unless it is another run's by now or has changed since the audit."""
        reached("audited")
        self.lease.check()
        if self.warehouse.snapshot(PREDICTIONS, self.branch) != self.audited:
            raise UnbalancedRun(f"branch {self.branch} has changed since it was audited")
        return self.warehouse.publish(PREDICTIONS, self.branch)


def _counted(rows: Iterable[tuple[str, int]]) -> Counts:
    found: Counter[str] = Counter()
    for status, count in rows:
        found[status] += count
    return dict(found)
