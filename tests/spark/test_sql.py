"""The queries of conf/sql, run by a JDBC client of a Thrift server, and by spark-sql."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, PREDICTIONS, RUNS, Warehouse

pytestmark = [
    pytest.mark.spark,
    pytest.mark.extended("starts a Thrift server, and spark-sql", seconds=30),
]

ROOT = Path(__file__).resolve().parents[2]
SQL = ROOT / "conf" / "sql"
START_SECONDS = 90

ROWS = """INSERT INTO {table} (
  image_id, path, file_length, file_modified, status, reason, detail, label, confidence,
  probabilities, needs_review, review_reasons, novelty, mask, lung_area, model_id, engine, run_id,
  scored_at
)
SELECT 'i' || n, 'file:///' || n || '.png', 1, TIMESTAMP '2026-01-01', status, reason, detail,
       label, confidence, IF(label IS NULL, NULL, map(label, confidence)), confidence < 0.6,
       IF(confidence < 0.6, array('confidence', 'mask'), array()), confidence,
       IF(label IS NULL, NULL, X'00'), lung_area, model, 'openvino', 'run-' || model, moment
FROM VALUES
  (1, 'scored', NULL, NULL, 'COVID', 0.9D, 0.3D, 'old', TIMESTAMP '2026-01-02'),
  (2, 'rejected', 'truncated', 'half', NULL, NULL, NULL, 'old', TIMESTAMP '2026-01-02'),
  (1, 'scored', NULL, NULL, 'Normal', 0.5D, 0.2D, 'new', TIMESTAMP '2026-01-03'),
  (1, 'scored', NULL, NULL, 'COVID', 0.9D, 0.3D, 'old2', TIMESTAMP '2026-01-01')
AS rows(n, status, reason, detail, label, confidence, lung_area, model, moment)"""


@pytest.fixture(scope="module")
def warehouse(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sql")
    with open_session("test", str(folder)) as session:
        tables = Warehouse(session)
        for table in (IMAGES, PREDICTIONS, RUNS):
            tables.create_or_migrate(table)
        session.sql(ROWS.format(table=PREDICTIONS.full_name))
        session.sql(
            f"INSERT INTO {IMAGES.full_name} "
            "(path, label, source, ingested_at, detail, status, reason, run_id) VALUES "
            "('file:///3.png', 'COVID', 'ward', TIMESTAMP '2026-01-01', 'no bytes', 'rejected', "
            "'empty_file', 'preprocess-1')"
        )
        figures = '"scored": 1, "rejected": 2, "already_rejected": 1, "masks_failed": 4, '
        figures += '"images_per_second": 0.4, "exit_code": 3, "flagged": {"any": 1}'
        drift = '"drift": 1.5, "drift_from_recent_runs": null'
        old_drift = '"shift": 1.2, "shift_from_nights": 0.1'  # keys of version 0.1
        session.sql(
            f"INSERT INTO {RUNS.full_name} (run_id, job, started_at, seconds, settings, result, "
            "snapshot_id, model_id, versions) VALUES ('run-new', 'score', TIMESTAMP '2026-01-03', "
            f"2.5, '{{}}', '{{{figures}, {drift}}}', 1, 'new', map()), "
            "('run-old', 'score', TIMESTAMP '2026-01-02', "
            f"2.5, '{{}}', '{{{figures}, {old_drift}}}', 1, 'old', map())"
        )
    return folder


@pytest.fixture(scope="module")
def server(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Thrift server on the warehouse."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/bash", str(SQL / "serve.sh"), str(warehouse), str(port)],
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"},
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"jdbc:hive2://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def beeline(server: str, *given: str) -> list[list[str]]:
    """Return what the JDBC client prints: a line for each row, headings between the queries."""
    command = [
        str(ROOT / ".venv/bin/beeline"),
        "-u",
        server,
        "--silent=true",
        "--outputformat=tsv2",
    ]
    done = subprocess.run([*command, *given], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.split("\t") for line in done.stdout.splitlines() if line]


def test_a_jdbc_client_reads_the_tables_and_the_views(server: str, tmp_path: Path) -> None:
    samples = sorted(path for path in SQL.glob("*.sql") if path.name != "views.sql")
    assert len(samples) >= 5
    script = tmp_path / "all.sql"
    script.write_text("".join(path.read_text() for path in [SQL / "views.sql", *samples]))
    found = beeline(server, "-f", str(script))
    assert ["scored", "Normal", "1", "0.5"] in found  # of the newest model alone
    assert ["rejected", "truncated", "1", "NULL"] in found
    assert ["file:///1.png", "Normal", "0.5", "0.5", "confidence, mask"] in found  # needs review
    counts, rest = ["1", "2", "1", "4", "3"], ['{"any":1}', "0.4", "NULL"]
    assert ["run-new", "2026-01-03 00:00:00.0", *counts, "1.5", "NULL", *rest] in found
    assert ["run-old", "2026-01-02 00:00:00.0", *counts, "1.2", "0.1", *rest] in found
    assert ["file:///1.png", "Normal", "COVID", "new", "old"] in found
    assert ["run-old", "COVID", "1", "1.0", "0.9", "0.3"] in found


def test_spark_sql_has_the_views(warehouse: Path) -> None:
    query = "SELECT label FROM latest UNION ALL SELECT reason FROM rejects"
    done = subprocess.run(
        ["/bin/bash", str(SQL / "open.sh"), str(warehouse), "-e", query],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(done.stdout.split()) == ["NULL", "Normal", "empty_file"]
