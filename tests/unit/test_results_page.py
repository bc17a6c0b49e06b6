"""The page that `make results` updates."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagle_spark.errors import InputError
from eagle_spark.report.results import BEGIN, END, PAGE, replace_figures

RESULTS = Path(__file__).resolve().parents[2] / "results"


def test_the_figures_between_the_marks_are_replaced_and_nothing_else() -> None:
    page = (RESULTS / PAGE).read_text(encoding="utf-8")
    replaced = replace_figures(page, "new figures")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    assert replaced == f"{before}{BEGIN}\nnew figures\n{END}{after}"
    assert replace_figures(replaced, "new figures") == replaced


@pytest.mark.parametrize("page", ["", BEGIN, f"{END} {BEGIN}"])
def test_a_page_without_marks_is_an_error(page: str) -> None:
    with pytest.raises(InputError, match=r"accuracy\.md: wanted the lines"):
        replace_figures(page, "new figures")
