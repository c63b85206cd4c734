"""A meter, and a network that it watches."""

import pytest
from torch import nn

from budget_wrappers.metering import ComputeMeter


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter()


@pytest.fixture
def net() -> nn.Sequential:
    """2·(4·8 + 8·2) = 96 FLOPs a row."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
