"""A hook of MkDocs: the notebook becomes a page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

NOTEBOOK, NOTEBOOK_PAGE = "tutorials/tour.ipynb", "tutorials/tour.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the notebook."""
    from mkdocs.structure.files import File

    path = Path(config.docs_dir) / NOTEBOOK
    if path.is_file():
        content = render_notebook(json.loads(path.read_text(encoding="utf-8"))["cells"])
        files.append(File.generated(config, NOTEBOOK_PAGE, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to the notebook by links to its page."""
    notebook, page = Path(NOTEBOOK).name, Path(NOTEBOOK_PAGE).name
    return markdown.replace(f"{notebook})", f"{page})")


def render_notebook(cells: Iterable[dict[str, Any]]) -> str:
    """Return the cells of a notebook, with their text outputs, as Markdown."""
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            text = "".join(output["text"] if "text" in output else output["data"]["text/plain"])
            parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
