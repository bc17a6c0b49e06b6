"""spark-submit submit/score.py --images URI --model URI --warehouse URI: folder to predictions."""

from eagle_spark.cli.main import run_command

if __name__ == "__main__":
    raise SystemExit(run_command("score"))
