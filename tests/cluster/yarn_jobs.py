"""The jobs on YARN as a user runs them: a checkout's `conf/` and `submit/`, and the package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.local_cluster import HADOOP, LocalCluster

ROOT = HADOOP.parent
CONF = ROOT / "conf"
TRAINING_JOBS = ("train", "report")
JOB_TIMEOUT = 600  # seconds
LOG_TIMEOUT = 60
KeyValues = Sequence[str]  # KEY=VALUE


@dataclass
class Submitted:
    """A submitted job.

    Attributes:
        process: spark-submit, which waits for the job's end.
        log: file with the output of spark-submit.
    """

    cluster: LocalCluster
    process: subprocess.Popen[bytes]
    log: Path

    def application(self) -> str:
        """Return the application's id, as soon as spark-submit names it."""
        deadline = time.monotonic() + LOG_TIMEOUT
        while not (match := re.search(r"application_\d+_\d+", self.log.read_text())):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)
        return match.group()

    def end(self) -> tuple[int, Any]:
        """Wait for the end; return spark-submit's exit code and the job's last line, parsed."""
        code = self.process.wait(JOB_TIMEOUT)
        deadline = time.monotonic() + LOG_TIMEOUT
        while True:  # aggregated logs come some seconds after the end
            shown = subprocess.run(
                [HADOOP / "logs", self.application(), "-log_files", "stdout"],
                env=self.cluster.environment,
                capture_output=True,
                text=True,
                timeout=LOG_TIMEOUT,
            ).stdout
            if lines := re.findall(r"^\{.*\}$", shown, re.MULTILINE):
                return code, json.loads(lines[-1])
            assert time.monotonic() < deadline, f"{self.log.read_text()}\n{shown}"


@dataclass
class YarnJobs:
    """Submits jobs with nothing in the environment that points into the checkout.

    Attributes:
        folder: working folder and home of spark-submit.
        properties: folder of `yarn-score.conf` and `yarn-train.conf`.
    """

    cluster: LocalCluster
    folder: Path
    properties: Path = CONF

    def start(self, name: str, *options: object, conf: KeyValues = ()) -> Submitted:
        """Start `spark-submit --properties-file FILE submit/NAME.py OPTIONS`."""
        conf_words = [word for setting in conf for word in ("--conf", setting)]
        file = "yarn-train.conf" if name in TRAINING_JOBS else "yarn-score.conf"
        command = [
            str(Path(sys.executable).parent / "spark-submit"),
            *("--properties-file", str(self.properties / file)),
            *conf_words,
            str(ROOT / "submit" / f"{name}.py"),
            *map(str, options),
        ]
        variables = ("PATH", "JAVA_HOME", "LANG")
        environment = {key: os.environ[key] for key in variables if key in os.environ}
        environment |= {
            "HOME": str(self.folder),
            "HADOOP_CONF_DIR": str(self.cluster.run / "conf"),
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        log = self.folder / f"{name}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output
            )
        return Submitted(self.cluster, process, log)

    def run(self, name: str, *options: object, conf: KeyValues = ()) -> Any:
        """Run a job to its end and return its figures."""
        submitted = self.start(name, *options, conf=conf)
        code, result = submitted.end()
        assert code == 0, (result, submitted.log.read_text())
        return result
