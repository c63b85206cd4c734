"""``count_flops`` runs a module and leaves no trace of it."""

import copy
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from budget_wrappers.errors import UncountableError
from budget_wrappers.metering import ComputeMeter, count_flops

MODES = pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])


class Hoarder(nn.Module):
    """Keeps state in every way that a module can."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(2))
        self.hidden, self.kept, self.calls = torch.zeros(1, 2), None, 0
        self.seen, self.table = [], {}
        self.torch_draws, self.numpy_draws, self.python_draws = (
            torch.Generator().manual_seed(3),
            np.random.default_rng(3),
            random.Random(3),
        )

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.replaced = torch.ones(2)
        self.hidden.add_(1.0)
        self.kept = x
        self.calls += 1
        self.seen.append(x)
        self.table["last"] = x
        self.added = True
        torch.rand(1, generator=self.torch_draws)
        self.numpy_draws.random()
        self.python_draws.random()
        return self.layer(x)


@MODES
def test_every_kind_of_state_is_put_back(mode: type) -> None:
    module = Hoarder()
    buffers = dict(module.named_buffers())
    twin = copy.deepcopy(module)
    with mode():
        count_flops(module, torch.ones(1, 2))
    assert dict(module.named_buffers()).items() == buffers.items()  # the very same tensors
    assert module.steps == 0
    assert torch.equal(module.replaced, torch.zeros(2))
    assert torch.equal(module.hidden, torch.zeros(1, 2))
    assert (module.kept, module.calls, module.seen, module.table) == (None, 0, [], {})
    assert vars(module).keys() == vars(twin).keys()
    assert torch.equal(module.torch_draws.get_state(), twin.torch_draws.get_state())
    assert module.numpy_draws.random() == twin.numpy_draws.random()
    assert module.python_draws.random() == twin.python_draws.random()


@pytest.mark.parametrize(
    "wrap", [lambda module: module.forward, lambda module: partial(module), lambda m: lambda x: m(x)]
)
def test_state_is_put_back_behind_methods_partials_and_closures(wrap: type) -> None:
    module = Hoarder()
    count_flops(wrap(module), torch.ones(1, 2))
    assert (module.calls, float(module.steps)) == (0, 0.0)


@MODES
def test_batch_statistics_stay(mode: type) -> None:
    norm = nn.BatchNorm1d(3)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with mode():
        count_flops(norm, torch.randn(5, 3))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert norm.training


def test_global_random_generators_stay() -> None:
    def draw(x: Tensor) -> Tensor:
        return x + torch.rand(2) + random.random() + np.random.rand()  # noqa: NPY002

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    count_flops(draw, torch.zeros(2))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002


def test_inputs_are_not_written_to() -> None:
    x = -torch.ones(1, 2)
    count_flops(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 2)), x)
    assert torch.equal(x, -torch.ones(1, 2))


def test_gradients_are_put_back_value_and_object() -> None:
    class Selfish(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.with_grad, self.without = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

        def forward(self, x: Tensor) -> None:
            self.without(self.with_grad(x)).sum().backward()

    module, x = Selfish(), torch.ones(1, 2, requires_grad=True)
    gradient = module.with_grad.weight.grad = torch.full((2, 2), 5.0)
    count_flops(module, x)
    assert module.with_grad.weight.grad is gradient
    assert torch.equal(gradient, torch.full((2, 2), 5.0))
    assert module.without.weight.grad is None
    assert x.grad is None


def test_state_is_put_back_after_a_refusal() -> None:
    class Failing(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.prims.sin(super().forward(x))

    module, state = Failing(3), torch.get_rng_state()
    with pytest.raises(UncountableError, match=r"prims\.sin"):
        count_flops(module, torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    assert module.num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled()


def test_no_meter_is_charged_for_a_count() -> None:
    module, meter = nn.Linear(2, 2), ComputeMeter()
    with meter.watch(module), torch.no_grad():
        count_flops(module, torch.zeros(1, 2))
    assert meter.totals == {"act": 0, "charged": 0, "learn": 0, "rows": 0}


def test_a_module_that_is_passed_its_weights_keeps_them() -> None:
    layer = nn.Linear(2, 2)
    weight = layer.weight
    assert count_flops(nn.functional.linear, torch.zeros(1, 2), weight) == 8
    assert layer.weight is weight
