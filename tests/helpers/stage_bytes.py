"""Bytes that pass through the stages of a Spark application."""

from __future__ import annotations

from typing import Any


def list_stage_bytes(spark: Any) -> list[int]:
    """Return, for each stage of the application, the bytes that its tasks read, wrote or sent."""
    context = spark.sparkContext
    context._jsc.sc().listenerBus().waitUntilEmpty()
    gateway = context._gateway
    empty = gateway.new_array(gateway.jvm.double, 0)
    stages = context._jsc.sc().statusStore().stageList(None, False, False, empty, None)
    return [
        stage.inputBytes()
        + stage.outputBytes()
        + stage.shuffleReadBytes()
        + stage.shuffleWriteBytes()
        + stage.resultSize()
        for stage in sorted(map(stages.apply, range(stages.size())), key=lambda one: one.stageId())
    ]
