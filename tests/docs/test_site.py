"""The site builds without a warning and loads no file of another server; faults are caught."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.page_runner import BlockError, PageRunner
from tests.helpers.pages import (
    DOCS,
    ROOT,
    find_unknown_options,
    list_checked,
    list_options,
    page_name,
    parse_blocks,
)

BUILD_TIMEOUT = 300
# Attributes by which a page loads a file; links that a reader follows are others.
LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//[^\s\">]+")
LINKED = re.compile(r"<link\b[^>]*\brel=\"?(?:stylesheet|preconnect|preload)[^>]*//[^>]*>")
CONFIG = """INHERIT: {config}
docs_dir: pages
hooks: []
watch: []
plugins: [search]
nav: [index.md, other.md]
"""

slow_build = pytest.mark.slow("builds a site")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build a site as `make docs` does."""
    words = ["build", "--strict", "--config-file", str(config), "--site-dir", str(site)]
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


@slow_build
def test_every_page_is_in_the_site(site: Path) -> None:
    pages = [page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")]
    assert len(pages) > 30
    assert all((site / page).is_file() for page in pages)
    assert (site / "results" / "index.html").is_file()
    assert (site / "results" / "window.png").is_file()
    assert 'src="../results/window.png"' in (site / "how-to" / "window.html").read_text()
    assert not list(site.rglob("*.py"))
    assert not (site / "vocabulary.txt").exists()


@slow_build
def test_the_notebook_is_a_page(site: Path) -> None:
    cells = json.loads((DOCS / "tutorials" / "tour.ipynb").read_text())["cells"]
    page = (site / "tutorials" / "tour.html").read_text()
    outputs = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    assert len(re.findall(r"<pre\b", page)) == len(outputs) + sum(map(len, outputs))
    assert "|  scored|" in page
    assert "tour.ipynb" not in (site / "index.html").read_text()


@slow_build
def test_the_functions_are_in_the_site_with_their_examples(site: Path) -> None:
    page = (site / "reference" / "api.html").read_text()
    assert 'id="eagle_spark.api.predict_udf"' in page
    assert "Example::" not in page


@slow_build
def test_no_page_names_a_file_of_another_server(site: Path) -> None:
    """Only the script of the theme loads a file, Mermaid, where a page has a diagram."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        loaded = [*LOADED.findall(text), *LINKED.findall(text)]
        assert not loaded, (page, loaded)


@slow_build
def test_a_diagram_is_a_block_that_the_theme_draws(site: Path) -> None:
    page = site / "concepts" / "data-flow.html"
    assert '<pre class="mermaid"><code>flowchart' in page.read_text()


def write_site(folder: Path, text: str) -> Path:
    (folder / "pages").mkdir()
    (folder / "pages" / "index.md").write_text(text)
    (folder / "pages" / "other.md").write_text("# Other\n\n## Part\n")
    config = folder / "mkdocs.yml"
    config.write_text(CONFIG.format(config=ROOT / "mkdocs.yml"))
    return config


@slow_build
@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("other.md#part", None),
        ("gone.md", "'gone.md'"),
        ("other.md#gone", "'#gone'"),
        ("#gone", "'#gone'"),
        ("/other.html", "absolute link"),
        ("../README", "unrecognized relative link"),
    ],
)
def test_a_broken_link_is_caught(link: str, problem: str | None, tmp_path: Path) -> None:
    done = build(write_site(tmp_path, f"# Page\n\n[link]({link})\n"), tmp_path / "site")
    if problem is None:
        assert done.returncode == 0, done.stdout
    else:
        assert done.returncode != 0
        assert problem in done.stdout
        assert "strict mode" in done.stdout


def test_an_unknown_option_is_caught() -> None:
    text = """
<!-- not run: an example -->
```bash
eagle score --images images --engin onnx \\
  --model model --warehouse w --no-retry-rejected > result.json
spark-submit --conf a=b submit/train.py --warehouse w --conf-file c --bogus 3 && eagle scroe --x
eagle predict --model m --images a | head --lines 1  # eagle score --not-an-option
eagle-view --model m --zoom 2
```
"""
    assert find_unknown_options(text) == [
        "page:4: --engin is no option of score",
        "page:4: --bogus is no option of train",
        "page:4: eagle: scroe is no command",
        "page:4: --images is no option of predict",
        "page:4: --zoom is no option of view",
    ]


def test_options_are_those_of_the_settings() -> None:
    assert {"conf-file", "help", "images", "retry-rejected", "no-retry-rejected"} <= list_options(
        "score"
    )
    assert "images" not in list_options("predict")


@pytest.mark.parametrize("page", list_checked(), ids=page_name)
def test_every_option_of_a_page_exists(page: Path) -> None:
    assert find_unknown_options(page.read_text(encoding="utf-8"), page_name(page)) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```bash\ntrue\n```\n\n```bash\nfalse\n```\n", r"page.md:6: bash: exit code 1"),
        ("```bash\nfalse | true\n```\n", r"page.md:2: bash: exit code 1"),
        ("```bash\necho $UNSET_VARIABLE\n```\n", r"page.md:2: bash: exit code (1|127)\n.*unbound"),
        ("```python\n\nundefined\n```\n", r"page.md:2: python: (?s:.*)line 3(?s:.*)NameError"),
        ("```python\nraise SystemExit(0)\n```\n", r"page.md:2: python: (?s:.*)SystemExit"),
        ("```python\nimport os\nos._exit(0)\n```\n", r"page.md:2: python: the process"),
    ],
)
def test_a_failing_block_is_caught(text: str, problem: str, tmp_path: Path) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "folder"
    page.write_text(text)
    folder.mkdir()
    with pytest.raises(BlockError, match=problem), PageRunner(page, folder) as runner:
        runner.run(parse_blocks(text, page.name))


def test_blocks_of_a_page_share_what_they_set(tmp_path: Path) -> None:
    text = """
```bash
name=value
mkdir below
cd below
```

```bash
[ "$name" = value ]
[ "${PWD##*/}" = below ]
echo "$name" > made.txt
```

```python
def read():
    with open("below/made.txt") as file:
        return file.read()
```

```python
assert read() == "value\\n"
```
"""
    page, folder = tmp_path / "page.md", tmp_path / "folder"
    page.write_text(text)
    folder.mkdir()
    with PageRunner(page, folder) as runner:
        runner.run(parse_blocks(text, page.name))
    assert (folder / "below" / "made.txt").read_text() == "value\n"
