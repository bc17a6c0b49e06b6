"""What stands in the tables of a training whose model is not published."""

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
from eagle_spark.training.job import recorded

RECORDS = [{"rank": 0, "epochs": [{"epoch": 1, "loss": 0.5}]}]
RESULT = {"model_id": "m", "snapshot_id": 1, "seconds": 1.0}


@pytest.mark.spark
def test_rows_of_a_training_go_again_unless_its_model_is_there(spark: Any, tmp_path: Path) -> None:
    model = tmp_path / "model"
    settings = TrainSettings(warehouse=str(tmp_path / "w"), model=str(model))

    def rows(warehouse: Warehouse, run: Run) -> list[int]:
        mine = f"run_id = '{run.run_id}'"
        return [warehouse.read(table).where(mine).count() for table in (EPOCHS, METRICS, RUNS)]

    with open_session("test", str(tmp_path / "w")) as session:
        warehouse = Warehouse(session)
        runs = [Run("train", name, datetime.now(timezone.utc), settings) for name in "abc"]
        with recorded(warehouse, runs[0], RESULT, RECORDS, {}):
            assert rows(warehouse, runs[0]) == [1, 0, 1]
        assert rows(warehouse, runs[0]) == [1, 0, 1]
        with (
            pytest.raises(OutputError, match="no room"),
            recorded(warehouse, runs[1], RESULT, RECORDS, {}),
        ):
            raise OutputError("no room")
        assert rows(warehouse, runs[1]) == [0, 0, 0]
        # A signal that comes when the folder is there already.
        model.mkdir()
        (model / "metadata.json").write_text(json.dumps({"run_id": "c"}))
        with pytest.raises(KeyboardInterrupt), recorded(warehouse, runs[2], RESULT, RECORDS, {}):
            raise KeyboardInterrupt
        assert rows(warehouse, runs[2]) == [1, 0, 1]
        assert rows(warehouse, runs[0]) == [1, 0, 1]
