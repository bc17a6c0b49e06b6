"""Hooks of MkDocs: the notebook becomes a page, and the site has the files of `results/`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

NOTEBOOK, NOTEBOOK_PAGE = "tutorials/tour.ipynb", "tutorials/tour.md"
RESULTS = "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the notebook, and the files of `results/`."""
    from mkdocs.structure.files import File

    docs = Path(config.docs_dir)
    cells = json.loads((docs / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    files.append(File.generated(config, NOTEBOOK_PAGE, content=render_notebook(cells)))
    root = docs.parent
    for path in sorted((root / RESULTS).rglob("*.*")):
        name = path.relative_to(root).as_posix()
        files.append(File(name, str(root), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Replace links to the notebook and to `results/` by links to their pages in the site."""
    notebook, notebook_page = Path(NOTEBOOK).name, Path(NOTEBOOK_PAGE).name
    # From a page to `docs`; in the repository `results` is beside it, in the site within it.
    up = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace(f"{notebook})", f"{notebook_page})")
    return markdown.replace(f"]({up}../{RESULTS}/", f"]({up}{RESULTS}/")


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
