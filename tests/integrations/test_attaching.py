"""What integrations share: a class for one object, its layers found, and a missing library named."""

import copy
import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn

from budget_wrappers.errors import MeterError, MissingExtraError
from budget_wrappers.integrations.attaching import (
    ActingLayers,
    attach,
    detach,
    layers_of,
    refuse_attached,
    require_attached,
    shapes_decide,
)
from budget_wrappers.metering import ComputeMeter


class Foreign(nn.Module):
    """A module that is called with arrays, as foreign ones are, of layers that are called with tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
        self.shape = nn.Flatten()

    def forward(self, observations: np.ndarray) -> torch.Tensor:
        features = self.first(torch.as_tensor(observations))
        return torch.cat([head(features) for head in self.heads], 1)


def test_layers_are_the_largest_parts_that_get_tensors() -> None:
    module = Foreign()
    # A ModuleList is never called, and flattening costs nothing.
    assert list(layers_of(module)) == [module.first, *module.heads]


def test_acting_charges_rows_and_flops_with_gradients_on() -> None:
    meter, module = ComputeMeter(), Foreign()
    layers = ActingLayers(meter, {"foreign": module})
    layers.run(module, np.ones((5, 3), np.float32))
    spend = meter.take()
    # 2·(3·4 + 2·4·1) = 40 an observation.
    assert (spend.executed, spend.learned, spend.rows, dict(spend.by_name)) == (200, 0, 5, {"foreign": 200})
    with meter.paused():
        layers.run(module, np.ones((5, 3), np.float32))
    with meter.phase("learn"):
        layers.run(module, np.ones((5, 3), np.float32))
    layers.detach()
    layers.run(Foreign(), np.ones((0, 3), np.float32))
    assert (meter.totals["act"], meter.totals["learn"]) == (200, 200)


def test_attached_object_is_the_same_and_its_copy_is_as_before() -> None:
    module, meter = Foreign(), ComputeMeter()
    attach(module, meter, {"answer": lambda self: 42})
    assert (module.answer(), module.meter, type(module).__name__) == (42, meter, "Foreign")
    assert isinstance(module, Foreign)
    twin = copy.deepcopy(module)
    assert type(twin) is Foreign
    assert torch.equal(twin.first[0].weight, module.first[0].weight)
    with pytest.raises(MeterError, match="metered already"):
        refuse_attached(module)
    with pytest.raises(MeterError, match="is not metered"):
        require_attached(twin)
    detach(module)
    assert type(module) is Foreign


def test_shapes_decide_for_a_library_s_own_modules_only() -> None:
    assert shapes_decide(Foreign(), "tests")
    assert not shapes_decide(Foreign(), "another")
    assert not shapes_decide(nn.Sequential(Foreign()), "another")


@pytest.mark.parametrize(
    ("name", "needs"), [("tianshou", "tianshou.algorithm.algorithm_base"), ("skrl", "skrl.agents.torch")]
)
def test_missing_library_is_named_with_its_extra(name: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, needs, None)
    integration = importlib.import_module(f"budget_wrappers.integrations.{name}")  # which needs no library itself
    for call in (integration.metered, integration.as_sub_policy):
        with pytest.raises(MissingExtraError, match=rf"pip install 'budget-wrappers\[{name}\]'"):
            call(object())
