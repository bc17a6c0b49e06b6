"""Hooks of MkDocs: the notebook becomes a page, and diagrams need nothing from a network.

Material for MkDocs draws blocks of Mermaid by a script that it loads from a public server. A copy
of that script in `docs/assets/mermaid.min.js` is used instead. Without a copy, a diagram is shown
as text: a line for each arrow.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

MERMAID = "assets/mermaid.min.js"
NOTEBOOK, NOTEBOOK_PAGE = "tutorials/tour.ipynb", "tutorials/tour.md"
FENCES = "pymdownx.superfences"

_EDGE = re.compile(r"\s*(<)?--(?:\s+\"?(.*?)\"?\s+--)?>\s*")
_NODE = re.compile(r"(\w+)\s*(?:[\[({]+\"([^\"]*)\"[\])}]+)?")
_SUBGRAPH = re.compile(r"subgraph\s+(\w+)\s*\[\"([^\"]*)\"\]")
_MESSAGE = re.compile(r"(\s*)(\w+)-{1,2}>>(\w+): (.*)")
_PARTICIPANT = re.compile(r"\s*participant (\w+) as (.+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Choose how diagrams are shown."""
    if (Path(config.docs_dir) / MERMAID).is_file():
        config.extra_javascript.append(MERMAID)
        return config
    for fence in config.mdx_configs.get(FENCES, {}).get("custom_fences", ()):
        # Material's script looks for the class `mermaid`.
        fence.update({"class": "diagram", "format": format_diagram})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the notebook."""
    from mkdocs.structure.files import File

    path = Path(config.docs_dir) / NOTEBOOK
    if path.is_file():
        content = render_notebook(json.loads(path.read_text(encoding="utf-8"))["cells"])
        files.append(File.generated(config, NOTEBOOK_PAGE, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to the notebook lead to its page."""
    notebook, page = Path(NOTEBOOK).name, Path(NOTEBOOK_PAGE).name
    return markdown.replace(f"{notebook})", f"{page})")


def render_notebook(cells: Iterable[dict[str, Any]]) -> str:
    """Return the cells of a notebook as Markdown."""
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    return "\n\n".join(parts) + "\n"


def format_diagram(source: str, _language: str, class_name: str, *_: Any, **__: Any) -> str:
    """Return the HTML of a block of Mermaid."""
    return f'<pre class="{class_name}"><code>{html.escape(describe_diagram(source))}</code></pre>'


def describe_diagram(source: str) -> str:
    """Return a diagram as text; the source of one that is not understood.

    Flowcharts and sequence diagrams are understood, as far as the pages use them.
    """
    lines = [line for line in source.splitlines() if line.strip()]
    kind = lines[0].split()[0] if lines else ""
    try:
        if kind == "flowchart":
            return "\n".join(describe_flowchart(lines[1:]))
        if kind == "sequenceDiagram":
            return "\n".join(describe_sequence(lines[1:]))
    except ValueError:
        pass
    return source


def describe_flowchart(lines: list[str]) -> Iterator[str]:
    """Yield a line for each arrow of a flowchart: `from -- text --> to`.

    Raises:
        ValueError: for a line that is neither a node, arrows, nor the ends of a group.
    """
    labels: dict[str, str] = {}
    chains = []
    for line in map(str.strip, lines):
        if group := _SUBGRAPH.fullmatch(line):
            labels[group[1]] = group[2]
        elif line != "end":
            names, arrows = [], []
            parts = _EDGE.split(line)
            for node in parts[::3]:
                match = _NODE.fullmatch(node.strip())
                if match is None:
                    raise ValueError(f"unknown node {node!r}")
                names.append(match[1])
                if match[2] is not None:
                    labels[match[1]] = match[2]
            for back, text in zip(parts[1::3], parts[2::3], strict=True):
                arrows.append(f"{back or ''}--{f' {text} --' if text else ''}>")
            chains.append((names, arrows))
    for names, arrows in chains:
        shown = [labels.get(name, name) for name in names]
        for start, arrow, end in zip(shown, arrows, shown[1:], strict=False):
            yield f"{start} {arrow} {end}"


def describe_sequence(lines: list[str]) -> Iterator[str]:
    """Yield a line for each message of a sequence diagram: `from -> to: text`."""
    names = dict(match.groups() for line in lines if (match := _PARTICIPANT.fullmatch(line)))
    for line in lines:
        if message := _MESSAGE.fullmatch(line):
            indent, start, end, text = message.groups()
            yield f"{indent[2:]}{names.get(start, start)} -> {names.get(end, end)}: {text}"
        elif line.strip() != "end" and not _PARTICIPANT.fullmatch(line):
            yield f"{line[2:]}:"
