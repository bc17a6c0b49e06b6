"""Hostile inputs: a named reason or one clear error each, in bounded time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile import MEGABYTES, Case, cases, try_out

NO_MODEL = Path("no model")
ALL = list(cases(NO_MODEL))


def check(case: Case, folder: Path) -> None:
    found = try_out(case, folder)
    assert found.said.startswith(case.expected)
    assert found.megabytes < MEGABYTES


@pytest.mark.parametrize(
    "case",
    [case for case in ALL if case.kind != "model"],
    ids=lambda case: f"{case.kind}: {case.name}",
)
def test_a_hostile_input_gets_its_reason_in_bounds(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.train
@pytest.mark.parametrize("name", [case.name for case in ALL if case.kind == "model"])
def test_a_hostile_model_is_refused(name: str, model_folder: Path, tmp_path: Path) -> None:
    check(
        next(case for case in cases(model_folder) if case.name == name and case.kind == "model"),
        tmp_path,
    )


def test_there_are_at_least_sixty_kinds() -> None:
    assert len({case.name for case in ALL}) >= 60
