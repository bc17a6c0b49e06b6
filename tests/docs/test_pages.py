"""The blocks of every page run, page by page, in a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.page_runner import PageRunner
from tests.helpers.pages import Block, list_run_pages, page_name

pytestmark = [pytest.mark.spark, pytest.mark.train]  # TensorFlow makes the model

AT_EVERY_COMMIT = "docs/get-started.md"
SECONDS_PER_BLOCK = 15  # most blocks are a job, or a query that starts Spark


def make_parameter(page: Path, blocks: list[Block]) -> Any:
    """Return a page as a parameter, with the marker of its tier."""
    name, reason = page_name(page), f"runs {len(blocks)} blocks"
    mark = (
        pytest.mark.slow(reason)
        if name == AT_EVERY_COMMIT
        else pytest.mark.extended(reason, seconds=SECONDS_PER_BLOCK * len(blocks))
    )
    return pytest.param(page, blocks, marks=mark, id=name)


@pytest.mark.parametrize(
    ("page", "blocks"), [make_parameter(*page) for page in list_run_pages(cluster=False)]
)
def test_blocks_run(page: Path, blocks: list[Block], page_folder: Path) -> None:
    with PageRunner(page, page_folder) as runner:
        runner.run(blocks)
