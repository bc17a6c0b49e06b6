"""`eagle predict --model URI IMAGE…`: one JSON line per image, by the code of the window."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import Field
from pydantic_settings import CliPositionalArg

from eagle_spark.cli.runner import run_tool
from eagle_spark.settings import Settings, Text, model_option


class PredictSettings(Settings):
    """Print predictions as JSON, one line per image. Research use only."""

    model: Text = model_option()
    images: CliPositionalArg[list[str]] = Field(
        min_length=1, description="images or folders of images"
    )


def predict(settings: PredictSettings) -> Iterator[str]:
    """Yield the JSON of each image; the `status` of an unreadable one is `rejected`."""
    from eagle_spark.viewer.examine import ImageAnalyzer
    from eagle_spark.viewer.listing import list_image_files

    paths = list_image_files(settings.images)
    analyzer = ImageAnalyzer(settings.model)
    for path in paths:
        yield json.dumps(analyzer.to_record(analyzer.analyze(path)), allow_nan=False)


if __name__ == "__main__":
    raise SystemExit(run_tool(PredictSettings, predict, program="eagle-predict"))
