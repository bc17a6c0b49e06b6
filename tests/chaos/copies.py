"""Many files from few images: repeated with different bytes, and some of them broken."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from eagle_spark.errors import Reason

Break = Callable[[bytes, str], bytes]
BROKEN: dict[str, tuple[Break, Reason]] = {
    "truncated": (lambda data, _: data[: len(data) // 2], Reason.TRUNCATED),
    "empty": (lambda _, __: b"", Reason.EMPTY_FILE),
    "text": (lambda _, name: f"Not found: {name}\n".encode(), Reason.NOT_AN_IMAGE),
    "other magic": (lambda data, _: b"GIF89a" + data[6:], Reason.NOT_AN_IMAGE),
}
"""Functions that break a file, given its bytes and name, and the expected reason of its row."""


def repeat(files: Sequence[Path], count: int, target: Path) -> Path:
    """Write `count` files of different bytes into a new folder, from images in their order.

    From its second copy on, an image has a number after its last byte.
    """
    target.mkdir()
    for number in range(count):
        turn, place = divmod(number, len(files))
        path = files[place]
        suffix = turn.to_bytes((turn.bit_length() + 7) // 8, "big")
        (target / f"{number:06d}{path.suffix}").write_bytes(path.read_bytes() + suffix)
    return target


def break_some(folder: Path, count: int, draw: random.Random) -> dict[str, str]:
    """Break `count` files of a folder, each way equally often; return name -> key of `BROKEN`."""
    ways = list(BROKEN)
    chosen = draw.sample(sorted(folder.iterdir()), count)
    broken = {}
    for number, path in enumerate(chosen):
        way = ways[number % len(ways)]
        path.write_bytes(BROKEN[way][0](path.read_bytes(), path.name))
        broken[path.name] = way
    return broken
