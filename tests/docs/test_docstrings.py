"""The examples run: those in the docstrings of the public functions, and those of the READMEs."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eagle_spark as eagle
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, Warehouse
from tests.helpers.pages import ROOT, page_name, read_blocks
from tests.helpers.sample_images import encode_image, grey, make_tinted, write_file
from tests.helpers.sources import run_source

pytestmark = [
    pytest.mark.spark,
    pytest.mark.train,  # TensorFlow makes the model
]
READMES = sorted(ROOT.glob("README*.md"))
_EXAMPLE = re.compile(r"^Example::\n\n((?:    .*(?:\n|\Z)|\n)+)", re.MULTILINE)
# Images without pixels, ten patients of two images.
ROWS = f"""INSERT INTO {IMAGES.full_name}
  (image_id, path, label, patient_id, source, split, perceptual_hash, ingested_at)
SELECT sha2(CAST(id AS STRING), 256), id || '.png', IF(id < 10, 'A', 'B'), 'p' || (id DIV 2),
       'ward', 'train', unhex(sha2(CAST(id AS STRING), 256)), TIMESTAMP '2026-01-01'
FROM range(20)"""


def list_documented() -> Iterator[tuple[str, object]]:
    """Yield each public name, and the public methods of classes, with its object."""
    for name in eagle.__all__:
        item = getattr(eagle, name)
        yield name, item
        if inspect.isclass(item):
            for method, function in vars(item).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}", function


def find_examples() -> dict[str, str]:
    """Return name -> source of each example."""
    lines = (eagle.__doc__ or "").splitlines()  # its only indented lines are the example
    package = "\n".join(line for line in lines if line.startswith("    "))
    examples = {"eagle_spark": textwrap.dedent(package)}
    for name, item in list_documented():
        if match := _EXAMPLE.search(inspect.getdoc(item) or ""):
            examples[name] = textwrap.dedent(match[1])
    for page in READMES:
        for block in read_blocks(page):
            if block.runs:
                examples[f"{page_name(page)}:{block.line}"] = block.text
    return examples


EXAMPLES = find_examples()


def test_every_function_has_an_example() -> None:
    functions = {name for name in eagle.__all__ if inspect.isfunction(getattr(eagle, name))}
    assert {"eagle_spark", "Model.predict", *functions} <= EXAMPLES.keys()


def test_every_readme_has_an_example() -> None:
    pages = {name.partition(":")[0] for name in EXAMPLES}
    assert {page_name(page) for page in READMES} <= pages


@pytest.fixture(scope="module")
def paths(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Map a path or URI of the examples to a path of this test."""
    folder = tmp_path_factory.mktemp("examples")
    for number in range(3):
        write_file(folder / "ward" / f"{number}.png", make_tinted(number))
    write_file(folder / "ward" / "broken.png", b"no image")
    image = write_file(folder / "chest.png", encode_image(grey(), "PNG"))
    return {
        "hdfs:///models/cxr": str(model_folder),
        "demo/model": str(model_folder),
        "hdfs:///ward/": str(folder / "ward"),
        "hdfs:///archive/": str(folder / "ward"),
        "chest.png": str(image),
        "torax.png": str(image),
        "a.png": str(image),
    }


@pytest.fixture(scope="module")
def names(
    spark: Any, paths: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The names that the examples use: functions, a session with tables, a model and images."""
    warehouse = tmp_path_factory.mktemp("warehouse")
    with open_session("test", str(warehouse)) as writer:
        Warehouse(writer).create_or_migrate(IMAGES)
        writer.sql(ROWS)
    session = spark.newSession()
    catalog = "spark.sql.catalog.eagle"
    session.conf.set(catalog, "org.apache.iceberg.spark.SparkCatalog")
    session.conf.set(f"{catalog}.type", "hadoop")
    session.conf.set(f"{catalog}.warehouse", warehouse.as_uri())
    images = eagle.read_images(session, paths["hdfs:///ward/"])
    images.createOrReplaceTempView("ward")
    images.selectExpr("path", "'A' AS label").createOrReplaceTempView("labels")
    public = {name: getattr(eagle, name) for name in eagle.__all__}
    model = eagle.load_model(paths["demo/model"], engine="openvino", threads=1)
    return {**public, "spark": session, "model": model, "images": images}


@pytest.mark.slow("a dozen examples, most of them in Spark")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, names: dict[str, Any], paths: dict[str, str]) -> None:
    source = EXAMPLES[name]
    for path, local_path in paths.items():
        source = source.replace(f'"{path}"', repr(local_path))
    value = run_source(source, dict(names), name)
    if hasattr(value, "collect"):  # a DataFrame computes nothing until it is read
        assert value.collect()
