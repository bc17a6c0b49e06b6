"""An Airflow DAG: every night submit/night.sh. Exit code 3, a person must look, fails at once."""

from datetime import datetime, timedelta
from typing import Any

from airflow import DAG
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.bash import BashOperator


class Night(BashOperator):
    """One night, which fails where a person must look: a retry would find nothing new, and pass."""

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowSkipException as error:
            raise AirflowFailException("published, but a person must look: see the log") from error


with DAG(
    "eagle_spark",
    schedule="30 1 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
) as dag:
    Night(
        task_id="night",
        bash_command=(
            "/opt/eagle_spark/submit/night.sh hdfs:///archive hdfs:///models/m1 hdfs:///warehouse"
        ),
        skip_on_exit_code=3,
        retries=2,  # a killed run is gone on with
        retry_delay=timedelta(minutes=5),
        execution_timeout=timedelta(hours=6),
        # on_failure_callback=…: whom to tell; yours
    )
