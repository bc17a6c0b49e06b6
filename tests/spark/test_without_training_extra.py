"""The jobs in a Python that has the extra `dicom` alone: neither TensorFlow nor Qt nor plots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eagle_spark.datasets.synthetic.sample import write_sample, write_unlabelled
from eagle_spark.errors import EXTRAS
from tests.helpers.processes import run_eagle

pytestmark = [pytest.mark.spark, pytest.mark.train]  # TensorFlow makes the model
MISSING = {module for name, extra in EXTRAS.items() if name != "dicom" for module in extra.modules}
# Python imports it at its start: here, in each job and in Spark's workers.
SITE = f"""
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING!r}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""
JOBS = """
import json, os, sys
from importlib.util import find_spec
from pyspark.sql import SparkSession
import eagle_spark as eagle
from eagle_spark.cli.main import COMMANDS, main
from eagle_spark.cli.runner import configure_logging
from eagle_spark.datasets.ingest import preprocess
from eagle_spark.doctor.doctor import run_doctor
from eagle_spark.evaluation.evaluate import evaluate
from eagle_spark.scoring.job import score
from eagle_spark.settings import *
from eagle_spark.spark.session import DEFAULT_CONF, LOCAL_CONF, open_session
from eagle_spark.tables.maintenance import maintain

labelled, images, model, warehouse = sys.argv[1:]
configure_logging(DoctorSettings)
os.environ["PYSPARK_PYTHON"] = sys.executable
conf = DEFAULT_CONF | LOCAL_CONF | {"spark.master": "local[1]", "spark.driver.memory": "1g"}
builder = SparkSession.builder.config("spark.sql.shuffle.partitions", "1")
for key, value in conf.items():
    builder = builder.config(key, value)
spark = builder.getOrCreate()

def find_modules(_):
    return [name for name in ("pyarrow", "tensorflow") if find_spec(name)]

result = {"names": [name for name in eagle.__all__ if getattr(eagle, name)]}
result["worker"] = spark.sparkContext.parallelize([0], 1).flatMap(find_modules).collect()
result["preprocess"] = preprocess(PreprocessSettings(input=labelled, warehouse=warehouse)).accepted
scored = score(ScoreSettings(images=images, model=model, warehouse=warehouse))
result["score"] = (scored.scored, scored.rejected, scored.engine)
classes = "COVID=A,Normal=B,Viral Pneumonia=C"
result["evaluate"] = evaluate(EvaluateSettings(input=labelled, model=model, classes=classes)).images
maintain(MaintainSettings(warehouse=warehouse))
result["doctor"] = run_doctor(DoctorSettings(warehouse=warehouse)).not_run
with open_session("test", warehouse) as session:
    files = eagle.read_images(session, images)
    result["udf"] = eagle.score(files, eagle.load_model(model)).where("label IS NOT NULL").count()
    accepted = session.table("eagle.cxr.images").where("reason IS NULL")
    result["leaks"] = eagle.find_leaks(accepted)
for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as ended:
        result[f"{name} --help"] = ended.code
main(["predict", "--model", model, images])
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITE)
    return folder


@pytest.fixture
def slim(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the modules from the processes that the test starts."""
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)


@pytest.mark.slow("a Spark of its own, and each job that needs no extra")
def test_the_jobs_run(slim: None, model_folder: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "labelled", 12, 7)
    write_unlabelled(tmp_path / "images", 4, 5)
    places = (tmp_path / "labelled", tmp_path / "images", model_folder, tmp_path / "warehouse")
    done = subprocess.run(
        [sys.executable, "-c", JOBS, *map(str, places)],
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, last = (json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{")
    helped = {name: code for name, code in last.items() if name.endswith("--help")}
    assert set(helped.values()) == {0}
    assert len(lines) == 8
    assert {line["status"] for line in lines} == {"scored", "rejected"}
    assert {name: value for name, value in last.items() if name not in helped} == {
        "names": last["names"],
        "worker": ["pyarrow"],
        "preprocess": 12,
        "score": [4, 4, "openvino"],
        "evaluate": 12,
        "doctor": ["weights, ranks"],
        "udf": 4,
        "leaks": [],
    }
    needed = "train cannot run here: training needs tensorflow, which is not installed"
    assert needed in done.stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ("train", "--warehouse", "w", "--model", "m"),
            "training needs tensorflow, which is not installed: pip install 'eagle-spark[train]'",
        ),
        (
            ("report", "--warehouse", "w", "--model", "m", "--out", "o"),
            "the report needs matplotlib, which is not installed: "
            "pip install 'eagle-spark[report]'",
        ),
        (
            ("export", "--model", "m", "--format", "litert"),
            "--format litert needs ai_edge_litert, which is not installed: "
            "pip install 'eagle-spark[exports]'",
        ),
        (
            ("view",),
            "the window needs PySide6, which is not installed: pip install 'eagle-spark[viewer]'",
        ),
    ],
)
def test_a_command_that_needs_an_extra_ends_with_one_line(
    slim: None, words: tuple[str, ...], error: str
) -> None:
    done = run_eagle(*words)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: {error}"]


def test_the_engine_keras_is_named_with_its_extra(
    slim: None, model_folder: Path, tmp_path: Path
) -> None:
    places = ("--images", tmp_path, "--model", model_folder, "--warehouse", tmp_path / "w")
    done = run_eagle("score", "--engine", "keras", *places)
    assert done.returncode == 2
    missing = "--engine keras needs tensorflow, which is not installed: pip install"
    assert missing in json.loads(done.stdout)["error"]
