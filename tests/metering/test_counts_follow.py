"""What a watched module is charged follows the module: whatever is done to it, and however it is called."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from budget_wrappers.metering import ComputeMeter
from tests.metering.modules import Custom


def acted(meter: ComputeMeter, net: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Return what one forward with gradients off is charged."""
    with torch.no_grad():
        net(x)
    return meter.take_flops()


class LowRank(nn.Module):
    """W + a b with a (2, 1) and b (1, 8): 2·2·1·8 = 32 FLOPs more."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(2, 1)), nn.Parameter(torch.ones(1, 8))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.a @ self.b


def replaced(net: nn.Sequential) -> None:
    net[0], net[2] = nn.Linear(4, 3), nn.Linear(3, 2)


def appended(net: nn.Sequential) -> None:
    net.append(nn.Linear(2, 5))


def deleted(net: nn.Sequential) -> None:
    net[2] = nn.Identity()


def by_the_registry(net: nn.Sequential) -> None:
    net._modules["2"] = nn.Linear(8, 1)


def data_cut(net: nn.Sequential) -> None:
    net[0].weight.data, net[0].bias.data = net[0].weight.data[:3], net[0].bias.data[:3]
    net[2].weight.data = net[2].weight.data[:, :3]


def parameter_replaced(net: nn.Sequential) -> None:
    net[2].weight, net[2].bias = nn.Parameter(torch.zeros(6, 8)), nn.Parameter(torch.zeros(6))


def parametrized(net: nn.Sequential) -> None:
    parametrize.register_parametrization(net[2], "weight", LowRank())


def hooked(net: nn.Sequential) -> None:
    net[2].register_forward_hook(lambda module, args, out: out @ torch.ones(2, 2))


def pre_hooked(net: nn.Sequential) -> None:
    net[1].register_forward_pre_hook(lambda module, args: (args[0] @ torch.ones(8, 8),))


def hooked_itself(net: nn.Sequential) -> None:
    net.register_forward_hook(lambda module, args, out: out @ torch.ones(2, 3))


def own_forward(net: nn.Sequential) -> None:
    layer = net[2]
    layer.forward = lambda x: nn.functional.linear(x, layer.weight[:1], layer.bias[:1])


def pruned(net: nn.Sequential) -> None:
    prune.l1_unstructured(net[0], "weight", 0.5)  # masked, not smaller: the product is as large as before


CHANGES = {
    replaced: 2 * (4 * 3 + 3 * 2),
    appended: 96 + 2 * 2 * 5,
    deleted: 2 * 4 * 8,
    by_the_registry: 2 * (4 * 8 + 8 * 1),
    data_cut: 2 * (4 * 3 + 3 * 2),
    parameter_replaced: 2 * (4 * 8 + 8 * 6),
    parametrized: 96 + 32,
    hooked: 96 + 2 * 2 * 2,
    pre_hooked: 96 + 2 * 8 * 8,
    hooked_itself: 96 + 2 * 2 * 3,
    own_forward: 2 * (4 * 8 + 8 * 1),
    pruned: 96,
}


@pytest.mark.parametrize(("change", "right"), CHANGES.items(), ids=[change.__name__ for change in CHANGES])
@pytest.mark.parametrize("among", [False, True], ids=["alone", "among watched"])
def test_a_module_that_was_changed_is_charged_for_what_it_is_now(
    meter: ComputeMeter, net: nn.Sequential, change: Callable[[nn.Sequential], None], right: int, among: bool
) -> None:
    if among:
        meter.watch(net[1], "inside")
    meter.watch(net, "whole")
    x = torch.zeros(1, 4)
    assert acted(meter, net, x) == 96
    change(net)
    assert [acted(meter, net, x), acted(meter, net, torch.zeros(5, 4)), acted(meter, net, x)] == [right, 5 * right if
        change is not parametrized else 5 * 96 + 32, right]  # fmt: skip


def test_a_change_is_seen_in_a_module_that_was_declared_static(meter: ComputeMeter, net: nn.Sequential) -> None:
    meter.watch(net, static=True)
    before = acted(meter, net, torch.zeros(1, 4))
    net[2].register_forward_hook(lambda module, args, out: out @ torch.ones(2, 2))
    assert (before, acted(meter, net, torch.zeros(1, 4))) == (96, 104)


def test_a_convolution_that_strides_further_costs_less(meter: ComputeMeter) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3))  # 9·9 positions of 2·9·2 = 36
    meter.watch(net)
    before = acted(meter, net, torch.zeros(1, 1, 11, 11))
    net[0].stride = (2, 2)  # 5·5
    assert (before, acted(meter, net, torch.zeros(1, 1, 11, 11))) == (81 * 36, 25 * 36)


def test_weights_that_change_their_values_alone_are_not_counted_anew(
    meter: ComputeMeter, net: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter.watch(net)
    acted(meter, net, torch.zeros(1, 4))
    monkeypatch.setattr("budget_wrappers.metering.watching.count_flops", None)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    net.load_state_dict(copy.deepcopy(net.state_dict()))
    net.train().eval().requires_grad_(False)
    assert acted(meter, net, torch.zeros(1, 4)) == 96


# ---- transforms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [(32, 64, None), (None, 64), (64, 32, 64), (1, None, 7)], ids=str)
@pytest.mark.parametrize("wrap", [lambda net: net, Custom], ids=["static", "counted"])
def test_vmap_is_charged_for_every_row_and_remembers_none(
    meter: ComputeMeter, net: nn.Module, wrap: Callable[[nn.Module], nn.Module], calls: tuple[int | None, ...]
) -> None:
    net = wrap(net)
    meter.watch(net)
    charged = []
    for rows in calls:
        call, x = (net, torch.zeros(4)) if rows is None else (torch.vmap(net), torch.zeros(rows, 4))
        charged.append(acted(meter, call, x))
    assert charged == [96 * (rows or 1) for rows in calls]


def test_vmap_says_how_many_observations_it_was(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net)
    acted(meter, torch.vmap(net), torch.zeros(5, 4))
    assert meter.last_rows == 5


def test_an_ensemble_mapped_over_its_weights_is_charged_for_each_member(meter: ComputeMeter, net: nn.Module) -> None:
    members = {name: torch.stack([value] * 3) for name, value in net.state_dict().items()}
    meter.watch(net)

    def one(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(net, weights, (x,))

    with torch.no_grad():
        torch.vmap(one, (0, None))(members, torch.zeros(1, 4))
    assert meter.take_flops() == 3 * 96


DERIVATIVES = {
    "grad": lambda net: torch.func.grad(lambda x: net(x).sum()),
    "vjp": lambda net: lambda x: torch.func.vjp(net, x)[1](torch.ones(1, 2)),
    "jacrev": lambda net: torch.func.jacrev(net),
}


@pytest.mark.parametrize("derivative", DERIVATIVES.values(), ids=DERIVATIVES)
@pytest.mark.parametrize("seen", [False, True], ids=["new", "seen"])
def test_a_module_that_is_differentiated_by_torch_func_is_watched_on(
    meter: ComputeMeter, net: nn.Module, derivative: Callable[..., Callable[[Tensor], Tensor]], seen: bool
) -> None:
    meter.watch(net)
    x = torch.zeros(1, 4)
    if seen:
        acted(meter, net, x)
    derivative(net)(x)
    meter.discard()
    assert acted(meter, net, x) == 96


def test_gradients_of_single_samples_leave_the_count_as_it_is(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net)
    torch.vmap(torch.func.grad(lambda x: net(x).sum()))(torch.zeros(5, 4))
    meter.discard()
    assert acted(meter, net, torch.zeros(1, 4)) == 96


SETTINGS = {
    "pool": (nn.AvgPool2d(2), "kernel_size", 4),
    "upsample": (nn.Upsample(scale_factor=2.0), "scale_factor", 4.0),
    "adaptive": (nn.AdaptiveAvgPool2d(2), "output_size", 8),
}


@pytest.mark.parametrize(("layer", "setting", "value"), SETTINGS.values(), ids=SETTINGS)
def test_a_layer_whose_settings_were_changed_is_counted_anew(layer: nn.Module, setting: str, value: object) -> None:
    meter, net, x = ComputeMeter(convention="all"), nn.Sequential(copy.deepcopy(layer)), torch.zeros(1, 1, 16, 16)
    meter.watch(net)
    acted(meter, net, x)
    setattr(net[0], setting, value)
    fresh, twin = ComputeMeter(convention="all"), nn.Sequential(copy.deepcopy(net[0]))
    fresh.watch(twin)
    assert acted(meter, net, x) == acted(fresh, twin, x)


def test_hooks_of_all_modules_are_counted_while_they_are_there(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net)
    before = acted(meter, net, torch.zeros(1, 4))

    def hook(module: nn.Module, args: object, out: Tensor) -> Tensor | None:
        return out @ torch.ones(2, 2) if isinstance(module, nn.Linear) and out.shape[-1] == 2 else None

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        with_hook = acted(meter, net, torch.zeros(1, 4))
    finally:
        handle.remove()
    assert (before, with_hook, acted(meter, net, torch.zeros(1, 4))) == (96, 104, 96)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seen", [False, True], ids=["new", "seen"])
def test_tracing_a_watched_module_is_no_acting(meter: ComputeMeter, net: nn.Module, seen: bool) -> None:
    meter.watch(net)
    x = torch.zeros(1, 4)
    before = acted(meter, net, x) if seen else 0
    with torch.no_grad():
        torch.jit.trace(net, x)
    assert (before, meter.take_flops()) == (96 * seen, 0)


def test_exporting_a_watched_module_is_no_acting(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net)
    x = torch.zeros(1, 4)
    assert acted(meter, net, x) == 96
    with torch.no_grad():
        torch.export.export(net, (x,), strict=False)
    assert meter.take_flops() == 0


# ---- torch.compile ---------------------------------------------------------------------------------------------------


def compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    torch._dynamo.reset()
    return torch.compile(function, backend="eager")


@pytest.mark.parametrize("batches", [(1,), (1, 2, 5, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("first", [False, True], ids=["met inside", "met before"])
def test_a_watched_module_inside_of_a_compiled_function_is_charged(
    meter: ComputeMeter, net: nn.Module, batches: tuple[int, ...], first: bool
) -> None:
    meter.watch(net)
    if first:
        acted(meter, net, torch.zeros(1, 4))
    act = compiled(lambda x: torch.tanh(net(x)))
    assert [acted(meter, act, torch.zeros(rows, 4)) for rows in batches] == [96 * rows for rows in batches]


def test_a_module_compiled_after_it_was_watched_is_charged(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net)
    assert acted(meter, compiled(net), torch.zeros(2, 4)) == 192


def test_a_layer_replaced_between_calls_of_a_compiled_function_is_charged(
    meter: ComputeMeter, net: nn.Sequential
) -> None:
    meter.watch(net)
    act = compiled(lambda x: net(x) + 1)
    before = acted(meter, act, torch.zeros(1, 4))
    net[2] = nn.Linear(8, 6)
    assert (before, acted(meter, act, torch.zeros(1, 4))) == (96, 2 * (4 * 8 + 8 * 6))


def test_a_branching_module_inside_of_a_compiled_function_is_counted_as_it_ran(meter: ComputeMeter) -> None:
    class Branching(Custom):
        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if x.sum() > 0 else x

    net = Branching(nn.Linear(4, 4))
    meter.watch(net)
    act = compiled(lambda x: net(x) + 1)
    charged = [acted(meter, act, sign * torch.ones(rows, 4)) for sign, rows in ((1, 1), (-1, 1), (1, 3), (1, 1))]
    assert charged == [32, 0, 96, 32]


# ---- copies and files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda net: net, Custom], ids=["static", "counted"])
def test_a_module_pickled_while_watched_knows_nothing_of_this_library(
    meter: ComputeMeter, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    net = wrap(nn.Linear(4, 2))
    meter.watch(net)
    whole = pickle.dumps(net)
    assert b"budget_wrappers" not in whole
    twin = pickle.loads(whole)
    with torch.no_grad():
        assert torch.equal(twin(torch.ones(1, 4)), net(torch.ones(1, 4)))
    assert meter.take_flops() == 16


# ---- watching inside of what puts accounts back ----------------------------------------------------------------------


def test_a_module_first_watched_aside_acts_afterwards(meter: ComputeMeter, net: nn.Module) -> None:
    with meter.aside():
        meter.watch(net, "lazy")
        acted(meter, net, torch.zeros(1, 4))
    assert (acted(meter, net, torch.zeros(2, 4)), meter.used) == (192, True)


def test_a_module_first_watched_while_not_charging_acts_afterwards(meter: ComputeMeter, net: nn.Module) -> None:
    with meter.uncharging():
        meter.watch(net, "lazy")
    assert acted(meter, net, torch.zeros(2, 4)) == 192
