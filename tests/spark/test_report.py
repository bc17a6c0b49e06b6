"""The report: one page about a model and its tables, which loads no other file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eagle_spark.datasets.ingest import preprocess
from eagle_spark.errors import InputError, OutputError
from eagle_spark.model.bundle import open_bundle
from eagle_spark.model.network import STATISTICS_COUNT
from eagle_spark.report.probe import probe_source
from eagle_spark.report.report import report
from eagle_spark.settings import PreprocessSettings, ReportSettings
from tests.helpers.sample_images import encode_image, write_file

HOSTILE = "<b onload=alert(1)>&amp;.png"


class Page(HTMLParser):
    """The tags, text and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        self.shown += data


def blocks(number: int) -> bytes:
    """Return an image that is no near duplicate of another."""
    grey = np.random.default_rng(number).integers(0, 256, (8, 8)).astype(np.uint8)
    return encode_image(Image.fromarray(np.kron(grey, np.ones((8, 8), np.uint8))), "PNG")


@pytest.fixture(scope="module")
def warehouse(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of three classes, a broken file, and a name that is HTML."""
    folder = tmp_path_factory.mktemp("report")
    number = 0
    for source in ("one", "two"):
        for label in ("A", "B", "C"):
            for _ in range(8):
                number += 1
                write_file(folder / source / label / "images" / f"{number}.png", blocks(number))
    write_file(folder / "one" / "A" / "images" / HOSTILE, b"no image")
    for source in ("one", "two"):
        preprocess(
            PreprocessSettings(
                input=str(folder / source),
                warehouse=str(folder / "warehouse"),
                size=64,
                split="0.4,0.3,0.3",
            )
        )
    return folder / "warehouse"


@pytest.mark.slow("a job by its spark-submit")
@pytest.mark.spark
@pytest.mark.train
def test_the_page_loads_no_other_file_and_shows_the_results(
    warehouse: Path, model_folder: Path, tmp_path: Path, run_job: Callable[..., Any]
) -> None:
    out = tmp_path / "a report"
    places = ("--warehouse", warehouse, "--model", model_folder, "--out", out)
    done = run_job("report", *places)
    assert done.returncode == 0, done.stderr[-3000:]
    result = done.result
    assert result["report"] == str(out / "report.html")
    text = (out / "report.html").read_text()
    page = Page(text)
    assert all(one.startswith(("data:", "#")) for one in page.links)
    assert not re.search(r"@import|url\(http|<script|<link", text)
    assert {"b onload=alert(1)", "script"}.isdisjoint(page.tags)
    assert HOSTILE in page.shown
    assert "Research use only" in page.shown
    assert open_bundle(str(model_folder)).metadata.model_id in page.shown
    figures = json.loads((out / "figures.json").read_text())
    (whole, *parts) = figures["shortcuts"]
    assert whole["images"] == sum(one["images"] for one in parts) == result["pictures"] > 0
    assert {one["source"] for one in parts} == {"one", "two"}
    assert len(page.tags) > 200
    assert page.tags.count("img") >= 2 * min(6, whole["images"])
    assert figures["rejected"][0]["reason"] == "not_an_image"


@pytest.mark.spark
@pytest.mark.train
def test_wrong_settings_are_refused_before_the_report_is_written(
    warehouse: Path, model_folder: Path, other_model_folder: Path, tmp_path: Path
) -> None:
    def run(**changed: Any) -> None:
        given = {"warehouse": warehouse, "model": model_folder, "out": tmp_path / "out"} | changed
        report(ReportSettings(**{name: str(value) for name, value in given.items()}))

    with pytest.raises(InputError, match="no such folder"):
        run(warehouse=tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"`out` .*file.*cannot be written"):
        run(out=tmp_path / "file")
    with pytest.raises(InputError, match=r"wanted images of the model's classes .*'D'.*got .*'A'"):
        run(model=other_model_folder)
    assert not (tmp_path / "out" / "report.html").exists()


def seen(source: str, split: str, label: str, number: int, shift: float) -> dict[str, Any]:
    draw = np.random.default_rng((number, len(source), len(split)))
    values = draw.normal(size=STATISTICS_COUNT)
    values[:50] += shift
    statistics = values.astype(np.float16).tobytes()
    return {"split": split, "source": source, "label": label, "statistics": statistics}


def sources(apart: float, shared: bool = True) -> pd.DataFrame:
    return pd.DataFrame(
        seen(source, split, label if shared else f"{label} of {source}", 1000 * at + number, sign)
        for at, (source, sign) in enumerate((("near", apart), ("far", -apart)))
        for split in ("train", "val")
        for label in ("A", "B")
        for number in range(60)
    )


def test_the_probe_distinguishes_sources_only_if_they_differ() -> None:
    apart, alike = probe_source(sources(0.5)), probe_source(sources(0.0))
    assert apart is not None
    assert alike is not None
    assert apart["balanced_accuracy"] > 0.9
    assert 0.35 < alike["balanced_accuracy"] < 0.65
    assert (apart["sources"], apart["images"], apart["chance"]) == (2, 240, 0.5)


def test_without_a_class_in_both_sources_nothing_is_probed() -> None:
    assert probe_source(sources(0.5, shared=False)) is None
    assert probe_source(sources(0.5).query("source == 'near'")) is None
