"""Python warnings off while somebody decodes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_inside = 0
_filters = ExitStack()


@contextmanager
def no_warnings() -> Iterator[None]:
    """Drop all warnings in the block, and leave the filters as they were, from any thread.

    `warnings.catch_warnings` alone restores in the wrong order when two threads overlap, and
    leaves warnings off for good; here the first one in saves the filters, the last one restores.
    """
    global _inside
    with _lock:
        if _inside == 0:
            _filters.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _filters.close()
