"""The extras of the installation: what each installs, and the error about a missing one."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from eagle_spark.errors import EXTRAS, PlatformError, describe_missing, is_installed, require_extra

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_modules_of_an_extra_are_those_of_its_packages(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][extra]
    packages = [re.split(r"[<>=]", line)[0] for line in lines]
    for package, module in zip(packages, EXTRAS[extra].modules, strict=True):
        files = distribution(package).files or ()
        assert module in {file.parts[0].removesuffix(".py") for file in files}


def test_an_installed_extra_is_no_error_and_is_not_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for extra in EXTRAS:
        for module in EXTRAS[extra].modules:
            monkeypatch.delitem(sys.modules, module, raising=False)
        require_extra(extra)
        assert not set(EXTRAS[extra].modules) & sys.modules.keys()


def test_the_first_missing_module_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("keras", "nncf"):
        monkeypatch.setitem(sys.modules, module, None)
    assert not is_installed("keras")
    require_extra("train", "tensorflow")
    with pytest.raises(PlatformError) as raised:
        require_extra("train")
    assert str(raised.value) == (
        "training needs keras, which is not installed: pip install 'eagle-spark[train]'"
    )
    assert raised.value.exit_code == 2
    with pytest.raises(PlatformError, match=r"^`precision` int8 needs nncf, which is"):
        require_extra("train", "tensorflow", "nncf", purpose="`precision` int8")


def test_a_part_of_every_installation_names_no_extra() -> None:
    text = describe_missing("", "openvino", "`engine` openvino")
    assert (
        text == "`engine` openvino needs openvino, which is not installed: pip install eagle-spark"
    )
