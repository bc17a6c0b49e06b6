"""Time, memory and processor load of an epoch in this process."""

from __future__ import annotations

import math
import time
from contextlib import suppress


class ResourceMonitor:
    """Measures the load of this process from construction to `read`."""

    def __init__(self) -> None:
        import psutil  # of the extra train

        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the interval
        self._start = time.monotonic()

    def read(self, images: int) -> dict[str, float]:
        """Return the load of the process; NaN for quantities that cannot be measured here.

        Args:
            images: number of images that all ranks processed since the start.

        Returns:
            `seconds`, `images_per_second` (all ranks), `cpu_percent` (of one core), `ram` (resident
            memory, bytes), `gpu_percent` and `gpu_memory_percent` (mean of the machine's GPUs).
        """
        seconds = max(time.monotonic() - self._start, 1e-3)
        gpu, memory = read_gpus()
        return {
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 2),
            "cpu_percent": self._process.cpu_percent(),
            "ram": self._process.memory_info().rss,
            "gpu_percent": gpu,
            "gpu_memory_percent": memory,
        }


def read_gpus() -> tuple[float, float]:
    """Return mean load and mean memory use of this machine's NVIDIA GPUs in percent, or NaN."""
    import pynvml

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        loads = [pynvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles]
        memory_infos = [pynvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
        pynvml.nvmlShutdown()
        if handles:
            memory = [100 * info.used / info.total for info in memory_infos]
            return sum(loads) / len(loads), sum(memory) / len(memory)
    return math.nan, math.nan
