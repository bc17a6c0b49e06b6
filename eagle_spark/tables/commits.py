"""Commits that are repeated where other runs commit at the same moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

MAX_TRIES = 10  # of a commit that conflicts with those of other runs
FIRST_WAIT_SECONDS = 0.01  # between two tries; doubles each time
T = TypeVar("T")


def retry_commit(commit: Callable[[], T]) -> T:
    """Return the result of a commit; repeat the commit if another run committed at the same moment.

    Args:
        commit: begins with the present state of the table each time. Iceberg 1.12 itself retries
            commits of rows, at most four times, and none of branches.
    """
    from py4j.protocol import Py4JJavaError

    for attempt in range(MAX_TRIES):
        try:
            return commit()
        except Py4JJavaError as error:
            last = attempt == MAX_TRIES - 1
            if last or "CommitFailedException" not in str(error.java_exception):
                raise
        time.sleep(FIRST_WAIT_SECONDS * 2**attempt)
    raise AssertionError
