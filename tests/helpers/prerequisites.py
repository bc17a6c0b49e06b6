"""Prerequisites of tests that a machine may not have."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_without(prerequisite: str) -> NoReturn:
    """Skip a test whose prerequisite is missing; in the CI, which installs all, let it fail.

    Args:
        prerequisite: what is missing, and how to install it.
    """
    if os.environ.get("CI"):
        pytest.fail(prerequisite)
    pytest.skip(prerequisite)
