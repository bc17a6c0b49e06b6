"""spark-submit submit/report.py --warehouse URI --model URI --out DIR: HTML report."""

from eagle_spark.cli.main import run_command

if __name__ == "__main__":
    raise SystemExit(run_command("report"))
