"""spark-submit submit/maintain.py --warehouse URI: compact tables, delete leftovers."""

from eagle_spark.cli.main import run_command

if __name__ == "__main__":
    raise SystemExit(run_command("maintain"))
