"""spark-submit submit/preprocess.py --input URI --warehouse URI: labelled folder to tables."""

from eagle_spark.cli.main import run_command

if __name__ == "__main__":
    raise SystemExit(run_command("preprocess"))
