"""Write the reference pages of the documentation from the code.

    python docs/generate.py

writes `docs/reference/*.md`, except `api.md`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import griffe
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import CliPositionalArg

from eagle_spark import errors
from eagle_spark.cli.main import COMMANDS, Command
from eagle_spark.cli.parse import CONF_FILE, PREFIX
from eagle_spark.errors import (
    EXIT_NEEDS_ATTENTION,
    REASON_MEANINGS,
    RETRYABLE_REASONS,
    EagleError,
    UserError,
)
from eagle_spark.metrics.calibration import Calibration, ReliabilityCurve, RiskCoverage
from eagle_spark.metrics.evaluation import GroupMetrics, Intervals, Metrics
from eagle_spark.model.bundle import MODEL_CARD
from eagle_spark.model.card import render_table
from eagle_spark.model.engines import INT8_FILE, LITERT_FILE, ONNX_FILE, OPENVINO_FILE
from eagle_spark.model.metadata import (
    GOLDEN,
    METADATA,
    NETWORK,
    WEIGHTS,
    GateResult,
    InputContract,
    ModelMetadata,
    Training,
)
from eagle_spark.model.novelty import NOVELTY_FILE
from eagle_spark.model.review import FLAG_MEANINGS, Flag, ReviewThresholds
from eagle_spark.tables import TABLES, Table
from eagle_spark.tables.schema import NAMESPACE, Column
from eagle_spark.training.log import CSV_FILE, JSON_LINES_FILE
from eagle_spark.training.ranks.rank import LOGS

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
VIEWS = ROOT / "conf" / "sql" / "views.sql"
MADE = "<!-- Made from the code by `make docs`. -->"
# What `CliPositionalArg` adds to the metadata of a field.
POSITIONAL = get_args(CliPositionalArg[str])[1]

# Errors outside of `errors.py`.
OTHER_ERRORS = (
    "io.lock:AlreadyRunningError",
    "doctor.doctor:ChecksFailedError",
    "training.ranks.failure:RankLostError",
    "training.ranks.failure:RankRaisedError",
)
# Commands whose function returns a mapping, and the dataclass of its keys.
OTHER_RESULTS = {"sample": "datasets.synthetic.sample:SampleCounts"}
RECORDS: tuple[type[BaseModel], ...] = (
    InputContract,
    ReviewThresholds,
    GateResult,
    Training,
    Metrics,
    GroupMetrics,
    Intervals,
    Calibration,
    ReliabilityCurve,
    RiskCoverage,
)
FILES = (
    (METADATA, "the keys below, and the SHA-256 of every other file", "always"),
    (MODEL_CARD, f"the content of `{METADATA}` for human readers", "always"),
    (NETWORK, "the Keras network: backbone and heads", "always"),
    (GOLDEN, "images, and the outputs of Keras that engines are compared with", "always"),
    (OPENVINO_FILE, "the network for OpenVINO, with a `.bin` of the same name", "always"),
    (INT8_FILE, "the same in 8-bit integers", "after a training on an int8 backbone"),
    (NOVELTY_FILE, "densities of the training data, for `novelty`", "after a training"),
    (WEIGHTS, "the weights of the network", "after a training"),
    (f"logs/{CSV_FILE}", "metrics of every epoch and rank", "after a training"),
    (f"logs/{JSON_LINES_FILE}", "the same as JSON lines", "after a training"),
    (f"logs/{LOGS}/", "events for TensorBoard", "after a training"),
    (ONNX_FILE, "the network as ONNX, for any number of images", "after `eagle export`"),
    (LITERT_FILE, "the network as LiteRT, for one image", "after `eagle export`"),
)
SIMPLE_TYPES = {str: "text", int: "integer", float: "number", bool: "boolean"}


def load(path: str) -> Any:
    """Return the object of `module:name` in the package."""
    module, _, name = path.partition(":")
    return getattr(import_module(f"eagle_spark.{module}"), name)


# Markdown


def join_page(title: str, sentence: str, *parts: str) -> str:
    """Return the text of a page."""
    return "\n\n".join((f"# {title}", sentence, MADE, *parts)) + "\n"


def escape(text: str) -> str:
    """Return text as Markdown that shows it as it is; code in backticks stays."""
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"([*_\\])", r"\\\1", parts[index]).replace("<", "&lt;")
    return "`".join(parts)


def code(text: object) -> str:
    return f"`{text}`"


def join_lines(text: str) -> str:
    return " ".join(text.split())


def name_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# Docstrings and types


def read_section(thing: object, kind: griffe.DocstringSectionKind) -> Any:
    """Return the content of a section of a docstring of Google's style; None without one."""
    docstring = griffe.Docstring(inspect.getdoc(thing) or "")
    sections = docstring.parse("google", returns_multiple_items=False, warnings=False)
    return next((section.value for section in sections if section.kind is kind), None)


def read_summary(thing: object) -> str:
    """Return the text of a docstring before its first section; a paragraph is one line."""
    text = read_section(thing, griffe.DocstringSectionKind.text) or ""
    return "\n\n".join(join_lines(paragraph) for paragraph in text.split("\n\n"))


def read_attributes(kind: type) -> dict[str, str]:
    """Return attribute -> text of the section `Attributes` of a class."""
    attributes = read_section(kind, griffe.DocstringSectionKind.attributes) or ()
    return {attribute.name: join_lines(attribute.description) for attribute in attributes}


def describe_key(kind: type, name: str) -> str:
    """Return the text of a key: of the docstring of its class, else of `GroupMetrics`.

    Raises:
        LookupError: when no docstring describes the key.
    """
    texts = {**read_attributes(GroupMetrics), **read_attributes(kind)}
    if name not in texts:
        raise LookupError(f"the docstring of {kind.__qualname__} lacks the attribute {name!r}")
    return escape(texts[name])


def describe_type(kind: Any, plural: bool = False) -> str:
    """Return the JSON type of an annotation, in words."""
    end = "s" if plural else ""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return describe_type(arguments[0], plural)
    if origin in (Union, UnionType):
        kinds = [describe_type(part, plural) for part in arguments if part is not NoneType]
        return " or ".join((*kinds, "null") if NoneType in arguments else kinds)
    if origin is Literal:
        return ", ".join(code(value) for value in arguments)
    if kind in SIMPLE_TYPES:
        return SIMPLE_TYPES[kind] + end
    if isinstance(kind, type) and kind in RECORDS:
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        values = arguments[1]
        shown = "" if values in (object, Any) else f" of {describe_type(values, plural=True)}"
        return f"object{end}{shown}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"array{end} of {describe_type(arguments[0], plural=True)}"
    if dataclasses.is_dataclass(kind):
        return f"object{end}"
    return f"value{end}"


# Pages


def commands_page() -> str:
    """Return the page of the commands."""
    rows = []
    for name, command in COMMANDS.items():
        script = f"submit/{name}.py"
        has_script = (ROOT / script).is_file()
        links = [f"[settings](settings.md#{name})"]
        if command.is_job:
            links.append(f"[result](results.md#{name})")
        rows.append(
            (
                code(f"eagle {name}"),
                escape(command.help),
                code(script) if has_script else "",
                "one JSON object" if command.is_job else "lines",
                ", ".join(links),
            )
        )
    return join_page(
        "Commands",
        "`eagle COMMAND` runs each job and tool of the package.",
        "`eagle --help` lists the commands, `eagle COMMAND --help` the options of one, and "
        "`eagle --version` prints the version. `spark-submit` runs a script of `submit/` with the "
        "options of its command, on one machine or on a cluster. `eagle-view` is `eagle view`.",
        render_table(("command", "purpose", "script", "standard output", "details"), rows),
        "The last line on standard output of a job is its result. Log lines and errors are on "
        "standard error; under `spark-submit` they precede the result on standard output, as it "
        "merges both outputs of Python. [Exit codes](exit-codes.md) has the codes of all commands.",
    )


def settings_page() -> str:
    """Return the page of the settings."""
    return join_page(
        "Settings",
        "Each command takes its settings from the command line, the environment and a TOML file.",
        f"The command line comes before the variables `{PREFIX}…`, and these come before the file "
        f"of `{CONF_FILE} TOML`. The file has the options as keys, without the leading dashes. "
        "A setting without a default is required. A setting whose values are `true` and `false` is "
        "a flag: `--NAME` or `--no-NAME` on the command line. Names in capitals are arguments "
        "without a name, at the end of the command. In Python a setting is a parameter of the "
        "settings class, in `eagle_spark.settings` for the jobs.",
        *(settings_section(name, command) for name, command in COMMANDS.items()),
    )


def settings_section(name: str, command: Command) -> str:
    kind = load(command.settings)
    rows = [describe_setting(key, field) for key, field in kind.model_fields.items()]
    header = ("setting", "variable", "values", "default", "meaning")
    return "\n\n".join((f"## {name}", escape(read_summary(kind)), render_table(header, rows)))


def describe_setting(name: str, field: FieldInfo) -> tuple[str, str, str, str, str]:
    """Return the cells of a setting."""
    is_positional = POSITIONAL in field.metadata
    if is_positional:
        shown = name.upper().replace("_", "-") + ("…" if get_origin(field.annotation) else "")
    else:
        shown = name_option(name)
    return (
        code(shown),
        "" if is_positional else code(PREFIX + name.upper()),
        describe_values(field),
        describe_default(field),
        escape(field.description or ""),
    )


def describe_values(field: FieldInfo) -> str:
    """Return the accepted values of a setting, as in its error."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "wanted" in extra:
        return escape(str(extra["wanted"]))
    if get_origin(field.annotation) is Literal:
        return ", ".join(code(value) for value in get_args(field.annotation))
    return "text"


def describe_default(field: FieldInfo) -> str:
    if field.is_required() or field.default is PydanticUndefined:
        return ""
    if isinstance(field.default, bool):
        return code(str(field.default).lower())
    return "none" if field.default in (None, []) else code(field.default)


def tables_page() -> str:
    """Return the page of the tables and views."""
    rows = [(f"[{table.name}](#{table.name})", escape(table.comment)) for table in TABLES]
    return join_page(
        "Tables",
        f"The warehouse holds these Apache Iceberg tables, `{NAMESPACE}.*` in SQL.",
        render_table(("table", "content"), rows),
        *map(table_section, TABLES),
        "## Views",
        "`make sql` and `conf/sql/open.sh` create these views of a session, each if its tables "
        "exist. `conf/sql` also holds queries that use them.",
        f"```sql\n{VIEWS.read_text(encoding='utf-8').strip()}\n```",
    )


def table_section(table: Table) -> str:
    parts = [f"## {table.name}", f"{escape(table.comment)}."]
    if table.partitioned_by:
        columns = ", ".join(map(code, table.partitioned_by))
        parts.append(f"Partitioned by {columns}.")
    rows = [
        (
            code(column.name),
            describe_column_type(column),
            "yes" if column.nullable else "no",
            escape(column.comment),
        )
        for column in table.columns
    ]
    return "\n\n".join((*parts, render_table(("column", "type", "null", "meaning"), rows)))


def describe_column_type(column: Column) -> str:
    """Return the SQL type of a column; of a struct with its fields."""
    if not column.fields:
        return code(column.type)
    fields = ", ".join(f"`{name}` `{kind}`" for name, kind in column.fields)
    return f"`STRUCT` of {fields}"


def reasons_page() -> str:
    """Return the page of the reasons for rejection and for review."""
    rejections = [
        (code(reason), escape(text), "yes" if reason in RETRYABLE_REASONS else "")
        for reason, text in REASON_MEANINGS.items()
    ]
    flags = [(code(flag), escape(FLAG_MEANINGS[flag])) for flag in Flag]
    return join_page(
        "Reasons",
        "A rejected file has a reason for rejection, a scored image that a person has to check has "
        "reasons for review.",
        "## Rejection",
        "The column `reason` of `images` and `predictions` holds the reason, the column `detail` "
        "the defect of the file. `score` processes the file again in each run for the reasons "
        "of the last column, and for all reasons with `--retry-rejected`.",
        render_table(("reason", "meaning", "tried again"), rejections),
        "## Review",
        "The column `review_reasons` of `predictions` holds the reasons in this order; "
        "`needs_review` is true if there is one. The thresholds are those of the "
        "[model folder](model-folder.md#reviewthresholds).",
        render_table(("reason", "meaning"), flags),
    )


def exit_codes_page() -> str:
    """Return the page of the exit codes and errors."""
    codes = (
        (0, "done"),
        (EagleError.exit_code, "failed; the same command may succeed when it is run again"),
        (UserError.exit_code, "the arguments, the input or the environment have to be corrected"),
        (EXIT_NEEDS_ATTENTION, "done and published, but a person has to check the result"),
    )
    rows = [(code(error.__name__), error.exit_code, raised_when(error)) for error in list_errors()]
    return join_page(
        "Exit codes",
        "Every job and tool ends with one of four exit codes.",
        render_table(("exit code", "meaning"), codes),
        "The JSON line of a job that failed has the keys `error` (text), `kind` (name of the "
        "error) and `exit_code`; a tool prints one line on standard error. An unexpected error has "
        "the exit code 1 and the `kind` of Python or Spark. On YARN in cluster mode `spark-submit` "
        "ends with 0 or 1, and the exit code of the job is in its JSON line.",
        "## Errors",
        render_table(("kind", "exit code", "raised"), rows),
    )


def list_errors() -> Iterator[type[EagleError]]:
    """Yield every error of the package, except that of a single image."""
    for error in vars(errors).values():
        is_error = isinstance(error, type) and issubclass(error, EagleError)
        if is_error and error is not errors.ImageRejectedError:
            yield error
    yield from map(load, OTHER_ERRORS)


def raised_when(error: type[EagleError]) -> str:
    sentence = read_summary(error).partition("\n\n")[0].removeprefix("Raised ")
    return escape(sentence.partition(". ")[0].partition("; exit code")[0].rstrip("."))


def results_page() -> str:
    """Return the page of the results of the jobs."""
    return join_page(
        "Results",
        "The last line on standard output of a job is one JSON object with these keys.",
        "The table `runs` holds the results of preprocess, train, score and maintain. The object "
        "of a job that failed has the keys `error`, `kind` and `exit_code`, and those of its "
        "figures that are known ([exit codes](exit-codes.md)). `source -> accuracy` stands for an "
        "object whose keys are sources. `None` in a text is `null` in JSON.",
        *(result_section(name, command) for name, command in COMMANDS.items() if command.is_job),
    )


def find_result_classes(name: str, command: Command) -> list[type]:
    """Return the dataclasses of the results of a job; none for a job that returns a mapping."""
    if name in OTHER_RESULTS:
        return [load(OTHER_RESULTS[name])]
    kind = get_type_hints(load(command.function))["return"]
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [kind for kind in kinds if dataclasses.is_dataclass(kind)]


def result_section(name: str, command: Command) -> str:
    kinds = find_result_classes(name, command)
    if not kinds:  # `upload`
        returns = read_section(load("io.upload:upload"), griffe.DocstringSectionKind.returns)
        return f"## {name}\n\n{escape(join_lines(returns[0].description))}"
    return "\n\n".join((f"## {name}", *map(result_part, kinds)))


def result_part(kind: type) -> str:
    """Return the text of a result, with its keys."""
    types = get_type_hints(kind)
    rows = [
        (code(field.name), describe_type(types[field.name]), describe_key(kind, field.name))
        for field in dataclasses.fields(kind)
    ]
    return "\n\n".join((escape(read_summary(kind)), render_table(("key", "type", "meaning"), rows)))


def model_folder_page() -> str:
    """Return the page of the files and the metadata of a model folder."""
    files = [(code(name), escape(text), origin) for name, text, origin in FILES]
    return join_page(
        "Model folder",
        "A model is a folder of these files.",
        render_table(("file", "content", "present"), files),
        f"`{METADATA}` holds the digests of all other files. They are checked before a file is "
        "loaded; a missing, altered or additional file is an error. No file is run as code. "
        "`None` in a text is `null` in JSON.",
        f"## Keys of `{METADATA}`",
        *record_parts(ModelMetadata),
        *(part for kind in RECORDS for part in (f"### {kind.__name__}", *record_parts(kind))),
    )


def record_parts(kind: type[BaseModel]) -> Iterator[str]:
    """Yield the summary and the table of a record; keys of its base class stand there."""
    yield escape(read_summary(kind))
    base = kind.__mro__[1]
    if base in RECORDS:
        yield f"It has the keys of [{base.__name__}](#{base.__name__.lower()}) too."
    rows = [
        (code(name), describe_type(field.annotation), describe_key(kind, name))
        for name, field in kind.model_fields.items()
        if name in kind.__annotations__
    ]
    yield render_table(("key", "type", "meaning"), rows)


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "tables.md": tables_page,
    "reasons.md": reasons_page,
    "exit-codes.md": exit_codes_page,
    "results.md": results_page,
    "model-folder.md": model_folder_page,
}


if __name__ == "__main__":
    for name, render in PAGES.items():
        (REFERENCE / name).write_text(render(), encoding="utf-8")
