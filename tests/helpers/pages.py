"""Pages of the documentation: their code blocks, which of them run, and the options they name.

A block in one of the languages `EXECUTED` runs, unless the line before it is a directive:

    <!-- not run: REASON -->    it does not run
    <!-- run: cluster -->       it runs on a local HDFS and YARN, with the other blocks of its page

Blocks in one of the languages `SHOWN` are output, data or diagrams, and have no directive. The
blocks of the README pages run with the examples of the docstrings. Those of `results/` do not run:
they are the commands of measurements, which take hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import get_args

from pydantic_settings import CliPositionalArg

from eagle_spark.cli.main import COMMANDS
from eagle_spark.cli.parse import CONF_FILE

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXECUTED = ("bash", "python", "sql")
SHOWN = ("json", "mermaid", "text")
NOT_RUN, CLUSTER = "not run", "cluster"
# What `CliPositionalArg` adds to the metadata of a field.
POSITIONAL = get_args(CliPositionalArg[str])[1]

_FENCE = re.compile(r"( *)(`{3,}|~{3,}) *([\w+-]*)")
_COMMENT = re.compile(r"\s*<!--\s*(.*?)\s*-->\s*")
_DIRECTIVE = re.compile(r"(not run|run)\b\s*:?\s*(.*)")
_CALL = re.compile(
    r"(?:\beagle[ \t]+(?P<command>[a-z][a-z-]*)|\beagle-(?P<program>view)\b"
    r"|\bsubmit/(?P<script>[a-z]+)\.py\b)(?P<words>[^|;&<>()`\n]*)"
)
_OPTION = re.compile(r"(?<!\S)--([a-z][a-z0-9-]*)")


class PageError(Exception):
    """Raised for a block or a directive that is not clear; names the page and the line."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: first word after the fence.
        text: code, without the indentation of the fence.
        line: number of the first line of code in the page, from 1.
        directive: `NOT_RUN`, `CLUSTER`, or empty.
    """

    language: str
    text: str
    line: int
    directive: str = ""

    @property
    def runs(self) -> bool:
        return self.language in EXECUTED and self.directive != NOT_RUN


def list_pages() -> list[Path]:
    """Return every page of `docs/`."""
    return sorted(DOCS.rglob("*.md"))


def list_checked() -> list[Path]:
    """Return every text for readers, whose blocks, options and words are checked."""
    files = [
        *ROOT.glob("README*.md"),
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *ROOT.glob("results/*.md"),
    ]
    return [*sorted(files), *list_pages()]


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page; see `parse_blocks`."""
    return parse_blocks(page.read_text(encoding="utf-8"), page_name(page))


def parse_blocks(text: str, name: str = "page") -> list[Block]:
    """Return the fenced blocks of a page, in their order.

    Raises:
        PageError: for a block without an end or in an unknown language, an unknown directive, a
            directive without a reason, and one whose next line begins no block that would run.
    """
    lines = text.splitlines()
    blocks: list[Block] = []
    start = 0
    while start < len(lines):
        place = f"{name}:{start + 1}"
        opening = _FENCE.match(lines[start])
        if opening is None:
            _check_comment(lines, start, place)
            start += 1
            continue
        indent, fence, language = opening.groups()
        end = next((i for i in range(start + 1, len(lines)) if lines[i].strip() == fence), None)
        if end is None:
            raise PageError(f"{place}: the block has no end")
        if language not in EXECUTED + SHOWN:
            raise PageError(f"{place}: wanted {', '.join(EXECUTED + SHOWN)}; got {language!r}")
        before = _COMMENT.fullmatch(lines[start - 1]) if start else None
        directive = _parse_directive(before[1], place) if before else ""
        if directive and language not in EXECUTED:
            raise PageError(f"{place}: {language} does not run, and needs no directive")
        code = "\n".join(line.removeprefix(indent) for line in lines[start + 1 : end])
        blocks.append(Block(language, code + "\n", start + 2, directive))
        start = end + 1
    return blocks


def _parse_directive(comment: str, place: str) -> str:
    """Return the directive of the comment before a block."""
    match = _DIRECTIVE.fullmatch(comment)
    if match is None:
        raise PageError(f"{place}: unknown directive {comment!r}")
    kind, value = match.groups()
    if kind == NOT_RUN:
        if not value:
            raise PageError(f"{place}: `not run` needs a reason")
        return NOT_RUN
    if value != CLUSTER:
        raise PageError(f"{place}: wanted `run: {CLUSTER}`; got {comment!r}")
    return CLUSTER


def _check_comment(lines: Sequence[str], number: int, place: str) -> None:
    """Raise PageError for a directive whose next line begins no block."""
    comment = _COMMENT.fullmatch(lines[number])
    if comment is None or not _DIRECTIVE.fullmatch(comment[1]):
        return
    if number + 1 == len(lines) or not _FENCE.match(lines[number + 1]):
        raise PageError(f"{place}: the directive has no block in the next line")


def list_run_pages(*, cluster: bool) -> list[tuple[Path, list[Block]]]:
    """Return the pages whose blocks run, with these blocks.

    Args:
        cluster: pages with a block for the cluster; else pages without one.
    """
    pages = [(page, [block for block in read_blocks(page) if block.runs]) for page in list_pages()]
    return [
        (page, blocks)
        for page, blocks in pages
        if blocks and cluster == any(block.directive == CLUSTER for block in blocks)
    ]


def find_unknown_options(text: str, name: str = "page") -> list[str]:
    """Return a line for each command or option of a page that does not exist.

    Calls of `eagle COMMAND`, `eagle-view` and `submit/COMMAND.py` count in `bash` blocks, also in
    those that do not run.
    """
    problems = []
    for block in parse_blocks(text, name):
        if block.language == "bash":
            for problem in _find_problems(re.sub(r"\\\n\s*", " ", block.text)):
                problems.append(f"{name}:{block.line}: {problem}")
    return problems


def _find_problems(code: str) -> Iterator[str]:
    for call in _CALL.finditer(re.sub(r"(?m)(?<!\S)#.*$", "", code)):
        command = call["command"] or call["program"] or call["script"]
        if command not in COMMANDS:
            yield f"{call[0].split()[0]}: {command} is no command"
            continue
        known = list_options(command)
        for option in _OPTION.findall(call["words"]):
            if option not in known:
                yield f"--{option} is no option of {command}"


def list_options(command: str) -> set[str]:
    """Return the options of a command, without the leading dashes."""
    module, _, kind = COMMANDS[command].settings.partition(":")
    settings = getattr(import_module(f"eagle_spark.{module}"), kind)
    options = {CONF_FILE.lstrip("-"), "help"}
    for name, field in settings.model_fields.items():
        option = name.replace("_", "-")
        if POSITIONAL not in field.metadata:
            options.add(option)
        if field.annotation is bool:
            options.add(f"no-{option}")
    return options
