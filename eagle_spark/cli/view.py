"""`eagle view [--model URI] [IMAGE…]`: the window for single images."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field
from pydantic_settings import CliPositionalArg

from eagle_spark.cli.runner import run_tool
from eagle_spark.errors import require_extra
from eagle_spark.settings import Settings, Text


class ViewSettings(Settings):
    """View X-rays with a model's predictions. Research use only."""

    model: Text | None = Field(None, description="model folder; default: the last used")
    images: CliPositionalArg[list[str]] = Field([], description="images or folders of images")


def view(settings: ViewSettings) -> Iterator[str]:
    """Open the window, and return when it is closed."""
    require_extra("viewer")
    from eagle_spark.viewer.app import run_viewer

    run_viewer(settings.model, settings.images)
    yield from ()


def main() -> int:
    """Run `eagle-view`."""
    return run_tool(ViewSettings, view, program="eagle-view")


if __name__ == "__main__":
    raise SystemExit(main())
