"""Airflow DAG: one scheduled run per night. Exit code 3 (needs attention) fails without retry."""

from datetime import datetime, timedelta
from typing import Any

from airflow import DAG
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.bash import BashOperator


class ScheduledRun(BashOperator):
    """One run, which fails when it needs attention: a retry finds no new files and succeeds."""

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowSkipException as error:
            raise AirflowFailException("published, but needs attention; see the log") from error


with DAG(
    "eagle_spark",
    schedule="30 1 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
) as dag:
    ScheduledRun(
        task_id="run",
        bash_command=(
            "/opt/eagle_spark/submit/scheduled_run.sh hdfs:///archive hdfs:///models/m1 "
            "hdfs:///warehouse"
        ),
        skip_on_exit_code=3,
        retries=2,  # a retry continues a killed run
        retry_delay=timedelta(minutes=5),
        execution_timeout=timedelta(hours=6),
        # on_failure_callback=…: set your notification
    )
