"""spark-submit submit/train.py --warehouse URI --model URI: table images to a model."""

from eagle_spark.cli.main import run_command

if __name__ == "__main__":
    raise SystemExit(run_command("train"))
