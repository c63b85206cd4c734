"""A meter that nobody else charges."""

import pytest

from budget_wrappers.metering import ComputeMeter


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")
