from __future__ import annotations

import warnings

from eagle_spark.imaging.quiet import no_warnings


def test_filters_come_back_when_blocks_overlap_as_threads_do() -> None:
    before = list(warnings.filters)
    first, second = no_warnings(), no_warnings()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn("still quiet", stacklevel=1)
    second.__exit__(None, None, None)
    assert warnings.filters == before
