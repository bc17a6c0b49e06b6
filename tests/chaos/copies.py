"""Many files from few: images repeated in other bytes, and some of them broken."""

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
"""Ways to break a file, from its bytes and name, and the reason that its row has to give."""


def repeat(files: Sequence[Path], count: int, target: Path) -> Path:
    """Write `count` files of different bytes into a new folder, from images in their order.

    From the second time on an image has a number behind its end.
    """
    target.mkdir()
    for number in range(count):
        turn, place = divmod(number, len(files))
        path = files[place]
        behind = turn.to_bytes((turn.bit_length() + 7) // 8, "big")
        (target / f"{number:06d}{path.suffix}").write_bytes(path.read_bytes() + behind)
    return target


def break_some(folder: Path, count: int, draw: random.Random) -> dict[str, str]:
    """Break `count` files of a folder, each way as often; return name -> which of `BROKEN`."""
    ways = list(BROKEN)
    chosen = draw.sample(sorted(folder.iterdir()), count)
    found = {}
    for number, path in enumerate(chosen):
        way = ways[number % len(ways)]
        path.write_bytes(BROKEN[way][0](path.read_bytes(), path.name))
        found[path.name] = way
    return found
