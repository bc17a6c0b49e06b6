"""Errors of Spark 4.1 for ranks that end early, as observed; paths and stacks shortened."""

from __future__ import annotations

import pytest

from eagle_spark.errors import EagleError, InputError
from eagle_spark.training.ranks.failure import RankLostError, RankRaisedError, parse_stage_failure

STAGE = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Could not recover from a \
failed barrier ResultStage. Most recent failure reason: Stage failed because barrier task \
ResultTask(0, {rank}) finished unsuccessfully.
{cause}
\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.read(PythonRunner.scala:645)
Caused by: java.lang.IllegalStateError: of Java's own
\t... 22 more
"""
RAISED = """org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "pyspark/worker.py", line 3386, in main
    process()
{error}
"""
CRASHED = (
    "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed). Consider "
    "setting 'spark.python.worker.faulthandler.enabled' configuration to 'true'."
)
EXECUTOR = (
    "ExecutorLostFailure (executor 2 exited caused by one of the running tasks) Reason: "
    "Container from a bad node: container_01 on host: node7. Exit status: 137."
)
CAUSES = " Possible causes: Unknown executor exit code (137) (died from signal 9?) Diagnostics"
CLOSED = """tensorflow.python.framework.errors_impl.UnavailableError: {{function_node f_9}} \
Collective ops is aborted by: Socket closed
Additional GRPC error information from remote target /job:worker/replica:0/task:1 while calling \
/tensorflow.WorkerService/RecvBuf:
:UNKNOWN:Error received from peer  {grpc_status:14, grpc_message:"Socket closed"}
The error could be from a previous operation. Restart your program to reset."""
UNHEALTHY = """tensorflow.python.framework.errors_impl.UnavailableError: Collective ops is aborted \
by: Error reported from /job:worker/task:1: The following tasks are unhealthy (stopped sending \
heartbeats):
/job:worker/replica:0/task:1
The tasks have crashed. Check the task logs for an earlier error."""
BELOW_TF_DATA = """tensorflow.python.framework.errors_impl.UnknownError: \
{{function_node __wrapped__IteratorGetNext}} InputError: the table holds the label 'x'
Traceback (most recent call last):
  File "feed.py", line 1, in assemble"""


@pytest.mark.parametrize(
    ("rank", "cause", "kind", "message"),
    [
        (1, CRASHED, RankLostError, "the process of rank 1 died"),
        (1, EXECUTOR + CAUSES, RankLostError, f"rank 1: {EXECUTOR}"),
        (
            0,
            RAISED.format(error=CLOSED),
            RankLostError,
            "rank 0 lost rank 1: UnavailableError: Collective ops is aborted by: Socket closed",
        ),
        (
            0,
            RAISED.format(error=UNHEALTHY),
            RankLostError,
            "rank 0 lost rank 1: UnavailableError: Collective ops is aborted by: Error reported "
            "from /job:worker/task:1: The following tasks are unhealthy "
            "(stopped sending heartbeats)",
        ),
        (
            1,
            RAISED.format(
                error="tensorflow.python.framework.errors_impl.UnknownError: "
                "Could not start gRPC server"
            ),
            RankLostError,
            "rank 1: UnknownError: Could not start gRPC server",
        ),
        (
            0,
            RAISED.format(error="ModuleNotFoundError: No module named 'eagle_spark'"),
            RankRaisedError,
            "rank 0: ModuleNotFoundError: No module named 'eagle_spark'",
        ),
        (
            1,
            RAISED.format(error="eagle_spark.errors.EagleError: after 600 s other ranks"),
            RankRaisedError,
            "rank 1: EagleError: after 600 s other ranks",
        ),
        (
            0,
            RAISED.format(error="eagle_spark.errors.InputError: the table holds 3 pixels"),
            InputError,
            "the table holds 3 pixels",
        ),
        (0, RAISED.format(error=BELOW_TF_DATA), InputError, "the table holds the label 'x'"),
    ],
)
def test_the_failure_of_a_task_is_one_line(
    rank: int, cause: str, kind: type[EagleError], message: str
) -> None:
    error = parse_stage_failure(STAGE.format(rank=rank, cause=cause))
    assert type(error) is kind
    assert str(error) == message


def test_a_cancelled_job_is_an_error() -> None:
    error = parse_stage_failure(
        "An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe."
        "\n: org.apache.spark.SparkException: Job 0 cancelled part of cancelled job group x\n\tat y"
    )
    assert type(error) is RankLostError
    assert str(error) == "Job 0 cancelled part of cancelled job group x"
