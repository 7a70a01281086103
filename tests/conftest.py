"""What every test shares: the same examples on every run, on the CPU. Warnings are errors (pyproject.toml)."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Derandomised: a failure on one machine is the same failure on the next. No deadline: no test asserts a time.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """The library takes seeds explicitly; this is for tests that draw from the standard library."""
    random.seed(0)
