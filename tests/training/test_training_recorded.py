"""Rows of a training whose model is not published."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.errors import OutputError
from eagle_spark.settings import TrainSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import EPOCHS, METRICS, RUNS, Run, Warehouse
from eagle_spark.training.result import TrainResult, run_record

RECORDS = [{"rank": 0, "epochs": [{"epoch": 1, "loss": 0.5}]}]
RESULT = TrainResult(
    accuracy=0.9,
    dice=0.9,
    ece=0.1,
    val_accuracy=None,
    val_dice=None,
    val_ece=None,
    accuracy_by_source={"a": 0.9},
    accuracy_left_out={},
    review={},
    flagged={"val": {}, "test": {"any": 0.1}},
    epochs=1,
    steps=10,
    ranks=1,
    restarts=0,
    restart_reasons=(),
    resumed_from=0,
    images={"train": {"x": 80}, "val": {}, "test": {"x": 20}},
    backbone="b",
    precision="f32",
    feature_rows=160,
    feature_gb=0.1,
    features_computed=160,
    temperature=1.0,
    nodes=("node",),
    rank_peak_memory_mb=(1000,),
    weights_digests=("d",),
    rank_seconds=1.0,
    stage_seconds={"start": 1.0},
    engine="openvino",
    model_id="m",
    snapshot_id=1,
    run_id="run",
    seconds=1.0,
)


@pytest.mark.spark
def test_rows_of_a_training_are_removed_unless_its_model_exists(spark: Any, tmp_path: Path) -> None:
    model = tmp_path / "model"
    settings = TrainSettings(warehouse=str(tmp_path / "w"), model=str(model))

    def rows(warehouse: Warehouse, run: Run) -> list[int]:
        condition = f"run_id = '{run.run_id}'"
        return [warehouse.read(table).where(condition).count() for table in (EPOCHS, METRICS, RUNS)]

    with open_session("test", str(tmp_path / "w")) as session:
        warehouse = Warehouse(session)
        runs = [Run("train", name, datetime.now(timezone.utc), settings) for name in "abc"]
        with run_record(warehouse, runs[0], RESULT, RECORDS, {}):
            assert rows(warehouse, runs[0]) == [1, 0, 1]
        assert rows(warehouse, runs[0]) == [1, 0, 1]
        with (
            pytest.raises(OutputError, match="no room"),
            run_record(warehouse, runs[1], RESULT, RECORDS, {}),
        ):
            raise OutputError("no room")
        assert rows(warehouse, runs[1]) == [0, 0, 0]
        # A signal that comes when the folder is there already.
        model.mkdir()
        (model / "metadata.json").write_text(json.dumps({"run_id": "c"}))
        with pytest.raises(KeyboardInterrupt), run_record(warehouse, runs[2], RESULT, RECORDS, {}):
            raise KeyboardInterrupt
        assert rows(warehouse, runs[2]) == [1, 0, 1]
        assert rows(warehouse, runs[0]) == [1, 0, 1]
