"""The reference pages are those that the code gives, and they lack nothing of it."""

from __future__ import annotations

import dataclasses
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import eagle_spark as eagle
from eagle_spark.cli.main import COMMANDS
from eagle_spark.errors import REASON_MEANINGS, Reason
from eagle_spark.model.metadata import ModelMetadata
from eagle_spark.model.review import Flag
from eagle_spark.tables import TABLES
from tests.helpers.pages import DOCS, POSITIONAL, ROOT

GENERATOR = DOCS / "generate.py"
GENERATE = runpy.run_path(str(GENERATOR), run_name="generate")
REFERENCE = DOCS / "reference"
JOBS = [name for name, command in COMMANDS.items() if command.is_job]


def read_page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def read_section(page: str, title: str) -> str:
    """Return the text of a section of a page, with its subsections."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", page, re.MULTILINE)
    assert found, title
    rest = page[found.end() :]
    return re.split(rf"^#{{1,{len(found[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def result_classes(name: str) -> list[Any]:
    kinds: list[Any] = GENERATE["find_result_classes"](name, COMMANDS[name])
    return kinds


@pytest.mark.parametrize("name", GENERATE["PAGES"])
def test_a_page_is_that_of_the_code(name: str) -> None:
    assert read_page(name) == GENERATE["PAGES"][name](), "run `make docs`"


@pytest.mark.parametrize("name", GENERATE["PAGES"])
def test_a_page_begins_with_a_sentence_and_names_its_origin(name: str) -> None:
    title, _, sentence, _, made, *_ = read_page(name).splitlines()
    assert title.startswith("# ")
    assert sentence.endswith(".")
    assert made == GENERATE["MADE"]


def test_the_generator_loads_neither_spark_nor_tensorflow() -> None:
    code = (
        "import runpy, sys\n"
        f"for render in runpy.run_path({str(GENERATOR)!r})['PAGES'].values(): render()\n"
        "loaded = {'pyspark', 'tensorflow', 'keras'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_setting_is_described(name: str) -> None:
    assert f"| `eagle {name}` |" in read_page("commands.md")
    section = read_section(read_page("settings.md"), name)
    module, _, kind = COMMANDS[name].settings.partition(":")
    settings = getattr(import_module(f"eagle_spark.{module}"), kind)
    for key, field in settings.model_fields.items():
        if POSITIONAL in field.metadata:
            assert f"`{key.upper()}" in section
        else:
            assert f"| `--{key.replace('_', '-')}` | `EAGLE_{key.upper()}` |" in section


def test_every_script_is_named() -> None:
    page = read_page("commands.md")
    scripts = sorted(path.name for path in (ROOT / "submit").glob("*.py"))
    assert len(scripts) >= 7
    assert all(f"`submit/{name}`" in page for name in scripts)


@pytest.mark.parametrize("name", JOBS)
def test_every_key_of_a_result_is_described(name: str) -> None:
    section = read_section(read_page("results.md"), name)
    kinds = result_classes(name)
    if not kinds:
        assert name == "upload"
        assert all(f"`{key}`" in section for key in ("listed", "uploaded", "skipped", "bytes"))
        return
    for field in (field for kind in kinds for field in dataclasses.fields(kind)):
        assert re.search(rf"^\| `{field.name}` \| \S.* \| \S.* \|$", section, re.MULTILINE)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_and_column_is_described(table: Any) -> None:
    page = read_page("tables.md")
    assert f"| [{table.name}](#{table.name}) |" in page
    section = read_section(page, table.name)
    assert all(f"| `{column.name}` |" in section for column in table.columns)


def test_every_view_is_shown() -> None:
    views = re.findall(r"VIEW (\w+) AS", (ROOT / "conf" / "sql" / "views.sql").read_text())
    assert len(views) >= 4
    section = read_section(read_page("tables.md"), "Views")
    assert all(f"VIEW {view} AS" in section for view in views)


def test_every_reason_has_a_text() -> None:
    page = read_page("reasons.md")
    for reason in [*Reason, *Flag]:
        assert re.search(rf"^\| `{reason}` \| \S", page, re.MULTILINE)
    assert list(REASON_MEANINGS) == list(Reason)  # the page has the order of the meanings


def test_every_error_is_named_with_its_exit_code() -> None:
    page = read_page("exit-codes.md")
    sources = [path.read_text() for path in (ROOT / "eagle_spark").rglob("*.py")]
    classes = dict(re.findall(r"^class (\w+Error)\((\w+)\)", "\n".join(sources), re.MULTILINE))
    named = {"EagleError"}
    while more := {name for name, base in classes.items() if base in named} - named:
        named |= more
    named -= {"ImageRejectedError"}  # becomes a row
    assert set(re.findall(r"^\| `(\w+Error)` \| [12] \|", page, re.MULTILINE)) == named


def test_every_key_of_the_metadata_is_described() -> None:
    page = read_page("model-folder.md")
    for kind in (ModelMetadata, *GENERATE["RECORDS"]):
        title = "Keys of `metadata.json`" if kind is ModelMetadata else kind.__name__
        section = read_section(page, title)
        for name in kind.__annotations__:
            assert re.search(rf"^\| `{name}` \| \S.* \| \S.* \|$", section, re.MULTILINE), name


@pytest.mark.train
def test_the_files_of_a_model_are_named(model_folder: Path) -> None:
    page = read_page("model-folder.md")
    files = [path for path in model_folder.rglob("*") if path.is_file()]
    names = {path.relative_to(model_folder).as_posix() for path in files}
    assert len(names) >= 6
    assert all(f"`{name}`" in page for name in names if not name.endswith(".bin"))


def test_every_public_name_is_documented_by_its_real_path() -> None:
    paths = re.findall(r"^::: (\S+)", read_page("api.md"), re.MULTILINE)
    public = [getattr(eagle, name) for name in eagle.__all__ if name != "__version__"]
    assert sorted(paths) == sorted(f"{item.__module__}.{item.__qualname__}" for item in public)
