"""What an epoch costs this process."""

from __future__ import annotations

import time

import psutil


class Monitor:
    """Measures from its making to `read`."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only sets the mark
        self._start = time.monotonic()

    def read(self, images: int) -> dict[str, float]:
        """Return `seconds`, `images_per_second` (all ranks), `cpu_percent` (of one core), `ram`.

        Args:
            images: how many went through all ranks since the start.

        `ram` is the resident memory of this process in bytes.
        """
        seconds = time.monotonic() - self._start
        return {
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 2),
            "cpu_percent": self._process.cpu_percent(),
            "ram": self._process.memory_info().rss,
        }
