from __future__ import annotations

import warnings

from eagle_spark.imaging.quiet import suppress_warnings


def test_filters_are_restored_after_overlapping_blocks() -> None:
    before = list(warnings.filters)
    first, second = suppress_warnings(), suppress_warnings()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn("still quiet", stacklevel=1)
    second.__exit__(None, None, None)
    assert warnings.filters == before
