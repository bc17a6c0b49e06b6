"""The README: its queries run, and its tables name every option, result and table."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.datasets.ingest import preprocess
from eagle_spark.datasets.synthetic.sample import write_sample, write_unlabelled
from eagle_spark.evaluation.evaluate import evaluate
from eagle_spark.scoring.job import score
from eagle_spark.settings import (
    DoctorSettings,
    EvaluateSettings,
    ExportSettings,
    MaintainSettings,
    PreprocessSettings,
    ReportSettings,
    ResizeSettings,
    ScoreSettings,
    Settings,
    TrainSettings,
)
from eagle_spark.spark.session import open_session
from eagle_spark.tables import TABLES, Warehouse

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.spark
def test_every_query_runs_on_the_tables(spark: Any, tmp_path: Path) -> None:
    queries = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    assert len(queries) >= 5
    with open_session("test", str(tmp_path)) as session:
        warehouse = Warehouse(session)
        for table in TABLES:
            warehouse.create_or_migrate(table)
        for sql in queries:
            assert session.sql(sql).collect() == []


def documented(job: str) -> set[str]:
    """The names in the sentence that begins with `Result:` in the section of a job."""
    section = re.split(r"\n##+ ", README.split(f"\n### {job}\n")[1])[0]
    sentence = section.split("\nResult: ")[1].split(";")[0].split(".\n")[0]
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", sentence))))


@pytest.mark.spark
def test_the_result_of_preprocess_is_described(spark: Any, tmp_path: Path) -> None:
    write_sample(tmp_path / "set", 12, 7)
    settings = PreprocessSettings(
        input=str(tmp_path / "set"), warehouse=str(tmp_path / "warehouse")
    )
    assert asdict(preprocess(settings)).keys() == documented("preprocess")


@pytest.mark.spark
@pytest.mark.train
def test_the_result_of_score_is_described(spark: Any, model_folder: Path, tmp_path: Path) -> None:
    write_unlabelled(tmp_path / "images", 4, 7)
    settings = ScoreSettings(
        images=str(tmp_path / "images"),
        model=str(model_folder),
        warehouse=str(tmp_path / "warehouse"),
    )
    assert asdict(score(settings)).keys() == documented("score")


@pytest.mark.spark
@pytest.mark.train
def test_the_result_of_evaluate_is_described(
    spark: Any, model_folder: Path, tmp_path: Path
) -> None:
    write_sample(tmp_path / "set", 12, 7)
    spellings = "COVID=A,Normal=B,Viral Pneumonia=C"
    settings = EvaluateSettings(
        input=str(tmp_path / "set"), model=str(model_folder), classes=spellings
    )
    assert asdict(evaluate(settings)).keys() == documented("evaluate")


@pytest.mark.parametrize(
    "kind",
    [
        PreprocessSettings,
        TrainSettings,
        ScoreSettings,
        EvaluateSettings,
        MaintainSettings,
        DoctorSettings,
        ExportSettings,
        ReportSettings,
        ResizeSettings,
    ],
)
def test_every_option_is_described(kind: type[Settings]) -> None:
    for name in kind.model_fields:
        assert f"`--{name.replace('_', '-')}" in README


def test_every_table_is_described() -> None:
    for table in TABLES:
        assert f"| `{table.name}` |" in README
