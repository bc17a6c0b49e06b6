"""Spark's daemon of Python workers, with libraries that it imports before it forks them.

Spark starts it as `python -m eagle_spark.spark.daemon pyspark.worker`. Each worker would otherwise
import the same libraries again, on the same cores.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from zipimport import zipimporter

IMPORTS_VARIABLE = "EAGLE_WORKER_IMPORTS"  # names of modules, with commas
SPARK_DAEMON = "pyspark.daemon"
# Of Arrow's allocator, read when pyarrow is first imported: it would start a thread.
ALLOCATOR_VARIABLE, WITHOUT_THREAD = "JE_ARROW_MALLOC_CONF", "background_thread:false"


def import_modules(names: Sequence[str]) -> None:
    """Import modules; one that fails is left to the task that needs it."""
    for name in names:
        with suppress(Exception), _stdout_to_stderr():
            import_module(name)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send what native libraries print to standard error: Spark reads a port from the output."""
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(output, 1)
        os.close(output)


def has_one_thread() -> bool:
    """Whether this process has no other thread; no where the system does not show it."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def shorten_tasks() -> None:
    """Exempt what is imported from work that Spark's workers do for each task: 0.15 s of each.

    At its beginning they invalidate the caches of imports: Python 3.11 reads the directory of
    `pyspark.zip` again for each package in it. At its end they collect garbage.
    """
    for finder in sys.path_importer_cache.values():
        if isinstance(finder, zipimporter):
            finder.invalidate_caches = lambda: None  # type: ignore[method-assign]
    gc.collect()
    gc.freeze()


def main() -> None:
    """Import the modules of `IMPORTS_VARIABLE` and run Spark's daemon in this process.

    A fork copies one thread: locks that others hold would stay locked in the workers. If an import
    has started a thread, Spark's daemon replaces this process, without the imports.
    """
    changed = os.environ.setdefault(ALLOCATOR_VARIABLE, WITHOUT_THREAD) == WITHOUT_THREAD
    import_modules(list(filter(None, os.environ.get(IMPORTS_VARIABLE, "").split(","))))
    if not has_one_thread():
        if changed:
            del os.environ[ALLOCATOR_VARIABLE]
        command = [sys.executable, "-m", SPARK_DAEMON, *sys.argv[1:]]
        os.execv(sys.executable, command)  # noqa: S606
    daemon = import_module(SPARK_DAEMON)
    shorten_tasks()
    daemon.manager()


if __name__ == "__main__":
    main()
