"""An extension of Griffe: the `Example::` of a docstring is shown as a block of Python."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example::\n\n((?:    .*(?:\n|\Z)|\n)+)", re.MULTILINE)


def show_examples(docstring: str) -> str:
    """Return a docstring whose examples are fenced blocks."""

    def fence(match: re.Match[str]) -> str:
        return f"Example:\n\n```python\n{textwrap.dedent(match[1]).strip()}\n```\n"

    return _EXAMPLE.sub(fence, docstring)


class ExampleBlocks(griffe.Extension):
    """Changes the docstring of each object, before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = show_examples(obj.docstring.value)
