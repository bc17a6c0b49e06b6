"""Suppress Python warnings while an image is decoded."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_open_blocks = 0
_saved_filters = ExitStack()


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress all warnings in the block and restore the filters afterwards; thread-safe.

    `warnings.catch_warnings` alone restores in the wrong order when the blocks of two threads
    overlap, and leaves warnings off for good; here the first block to begin saves the filters, and
    the last one to end restores them.
    """
    global _open_blocks
    with _lock:
        if _open_blocks == 0:
            _saved_filters.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _open_blocks += 1
    try:
        yield
    finally:
        with _lock:
            _open_blocks -= 1
            if _open_blocks == 0:
                _saved_filters.close()
