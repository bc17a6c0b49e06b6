"""spark-submit submit/doctor.py --warehouse URI: check this environment."""

from eagle_spark.cli.main import run_command

if __name__ == "__main__":
    raise SystemExit(run_command("doctor"))
