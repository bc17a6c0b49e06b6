"""spark-submit submit/evaluate.py --input URI --model URI: metrics on a labelled folder."""

from eagle_spark.cli.main import run_command

if __name__ == "__main__":
    raise SystemExit(run_command("evaluate"))
