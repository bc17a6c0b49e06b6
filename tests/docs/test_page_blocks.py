"""Every page has clear blocks, plain words and sound links; the parser rejects unclear blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.pages import (
    DOCS,
    ROOT,
    PageError,
    list_checked,
    list_pages,
    list_run_pages,
    page_name,
    parse_blocks,
    read_blocks,
)

MAX_LINES = 120
GENERATED = "docs/reference/"
# Their tables repeat the words of errors, at the time of the run.
RECORDED = ("results/hostile.md", "results/faults.md")
VOCABULARY = [
    line
    for line in (DOCS / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
_BLOCK = re.compile(r"^ *(`{3,}|~{3,}).*?\n *\1 *$", re.MULTILINE | re.DOTALL)
_DOUBLED = re.compile(r"(?<![\w-])([a-z]+) \1(?![\w-])")

PAGE = """# Title

<!-- not run: installs -->
```bash
make install
```

1. A step with `code`:

   <!-- run: cluster -->
   ```bash
   hadoop/fs -ls /

   ```

```text
``
```

````sql
SELECT 1
````
"""


def read_prose(text: str) -> str:
    """Return a page without blocks, code and comments; its lines keep their numbers."""
    text = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    return re.sub(r"<!--.*?-->|`+[^`\n]+`+", "", text)


def find_forbidden(text: str, vocabulary: Sequence[str]) -> list[tuple[int, str]]:
    """Return (line, phrase) for each forbidden phrase in the prose of a page.

    A phrase may be broken by the end of a line. A word that occurs twice in a row counts too.
    """
    prose = read_prose(text)
    phrases = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in vocabulary)
    matches = [
        *re.finditer(rf"(?<!\w)(?:{phrases})(?!\w)", prose, re.IGNORECASE),
        *_DOUBLED.finditer(prose),
    ]
    return sorted((prose.count("\n", 0, match.start()) + 1, match[0]) for match in matches)


def test_parse_blocks_returns_language_text_line_and_directive() -> None:
    install, cluster, text, sql = parse_blocks(PAGE)
    assert (install.language, install.text, install.line) == ("bash", "make install\n", 5)
    assert (install.directive, install.runs) == ("not run", False)
    assert (cluster.text, cluster.line) == ("hadoop/fs -ls /\n\n", 12)
    assert (cluster.directive, cluster.runs) == ("cluster", True)
    assert (text.language, text.text, text.runs) == ("text", "``\n", False)
    assert (sql.text, sql.directive, sql.runs) == ("SELECT 1\n", "", True)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<!-- skip: slow -->\n```bash\ntrue\n```", "page:2: unknown directive 'skip: slow'"),
        ("<!-- not run: -->\n```bash\ntrue\n```", "page:2: `not run` needs a reason"),
        ("<!-- not run -->\n```bash\ntrue\n```", "page:2: `not run` needs a reason"),
        ("<!-- run: yarn -->\n```bash\ntrue\n```", "page:2: wanted `run: cluster`"),
        ("<!-- not run: slow -->\n```text\nx\n```", "page:2: text does not run"),
        ("<!-- not run: slow -->\n\n```bash\ntrue\n```", "page:1: the directive has no block"),
        ("<!-- run: cluster -->", "page:1: the directive has no block"),
        ("\n```\ntrue\n```", "page:2: wanted bash, .* got ''"),
        ("```console\n$ true\n```", "page:1: wanted bash, .* got 'console'"),
        ("```bash\ntrue\n", "page:1: the block has no end"),
    ],
)
def test_parse_blocks_rejects_an_unclear_page(text: str, error: str) -> None:
    with pytest.raises(PageError, match=error):
        parse_blocks(text)


def test_parse_blocks_ignores_other_comments() -> None:
    assert parse_blocks("<!-- Made from the code. -->\n\n```text\nx\n```\n")[0].directive == ""


@pytest.mark.parametrize("page", list_checked(), ids=page_name)
def test_every_page_has_clear_blocks(page: Path) -> None:
    read_blocks(page)


def test_pages_run_on_one_machine_and_on_a_cluster() -> None:
    assert len(list_run_pages(cluster=False)) > 10
    assert list_run_pages(cluster=True)


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("README*.md")), *list_pages()], ids=page_name)
def test_every_page_is_short(page: Path) -> None:
    if not page_name(page).startswith(GENERATED):
        assert len(page.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("page", sorted({*ROOT.glob("*.md"), *list_checked()}), ids=page_name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_read_prose_removes_code_and_comments() -> None:
    assert read_prose("a `b` c <!-- d -->\n```text\ne\n```\nf") == "a  c \n\n\n\nf"
    assert read_prose("a\n````text\n```\n````\nb\n\n  ~~~sql\n  c\n  ~~~") == "a\n\n\n\nb\n\n\n\n"


def test_find_forbidden_returns_lines_and_phrases() -> None:
    text = "It is\ntold. Retold `tonight`.\n\n```text\ntonight\n```\nTonight the the run."
    phrases = find_forbidden(text, ["is told", "tonight"])
    assert phrases == [(1, "is\ntold"), (7, "Tonight"), (7, "the the")]


@pytest.mark.parametrize(
    "page", [page for page in list_checked() if page_name(page) not in RECORDED], ids=page_name
)
def test_no_page_contains_a_forbidden_phrase(page: Path) -> None:
    phrases = find_forbidden(page.read_text(encoding="utf-8"), VOCABULARY)
    assert not phrases, "\n".join(f"{page_name(page)}:{line}: {text!r}" for line, text in phrases)
