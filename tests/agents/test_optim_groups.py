"""Groups of the lean Adam against torch's and by hand; layers that changed size are followed, or refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.nets.mlp import MLP
from agents.nets.optim import FusedAdam
from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.surgery import keep_units

SHAPE_MESSAGE = (
    r"a parameter of shape {} has moments of shape {}: expected the parameter's; call agent.structure_changed"
)


def pair() -> tuple[MLP, MLP]:
    torch.manual_seed(0)
    return MLP((3, 8, 2), "relu"), MLP((3, 6, 2), "tanh")


def loss_of(nets: Any, x: Tensor) -> Tensor:
    return sum(net(x).square().sum() for net in nets)


def step(optimizer: torch.optim.Optimizer, loss: Tensor, clip: Callable[[], Any] = lambda: None) -> None:
    optimizer.zero_grad()
    loss.backward()
    clip()
    optimizer.step()


def same(one: Any, other: Any) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for own, its in pairs for a, b in zip(own.parameters(), its.parameters(), strict=True))


# ---- groups -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [({}, {}), ({"lr": 3e-2}, {"eps": 1e-3}), ({"lr": 0.0}, {"lr": 1e-1, "eps": 1.0})])
def test_groups_with_their_own_numbers_match_oracle_to_the_bit(settings: tuple[dict, dict]) -> None:
    ours, theirs = pair(), pair()
    own = FusedAdam([{"params": net, **given} for net, given in zip(ours, settings, strict=True)], lr=1e-2)
    oracle = torch.optim.Adam(
        [{"params": net.parameters(), **given} for net, given in zip(theirs, settings, strict=True)],
        lr=1e-2,
        fused=True,
    )
    for number in range(10):
        x = torch.randn(5, 3)
        if number % 2:
            own.descend(loss_of(ours, x))
        else:
            step(own, loss_of(ours, x))
        step(oracle, loss_of(theirs, x))
    assert same(ours, theirs)


def test_one_group_steps_like_no_group_to_the_bit() -> None:
    (ours, _), (theirs, _), (third, _) = pair(), pair(), pair()
    grouped, plain = FusedAdam([{"params": ours}], lr=1e-2), FusedAdam(third, lr=1e-2)
    oracle = torch.optim.Adam(theirs.parameters(), lr=1e-2, fused=True)
    for _ in range(10):
        x = torch.randn(5, 3)
        grouped.descend(loss_of([ours], x))
        plain.descend(loss_of([third], x))
        step(oracle, loss_of([theirs], x))
    assert same([ours, ours], [theirs, third])


@pytest.mark.parametrize(
    "given",
    [
        lambda net: net,
        lambda net: [net],
        lambda net: net.parameters(),
        lambda net: list(net),  # several modules, of which the activation has no parameter
        lambda net: [{"params": net}],
        lambda net: [{"params": net.parameters()}],
        lambda net: [{"params": [net[0], net[1]]}, {"params": net[2]}],
        lambda net: [{"params": parameter} for parameter in net.parameters()],
    ],
)
def test_modules_and_parameters_alone_or_in_groups_are_the_same_optimizer(given: Any) -> None:
    (ours, _), (theirs, _) = pair(), pair()
    own, oracle = FusedAdam(given(ours), lr=1e-2), torch.optim.Adam(theirs.parameters(), lr=1e-2, fused=True)
    for _ in range(3):
        x = torch.randn(5, 3)
        own.descend(loss_of([ours], x))
        step(oracle, loss_of([theirs], x))
    assert same([ours], [theirs])


def test_each_group_s_gradient_is_cut_to_its_own_norm() -> None:
    # The tanh network's gradient is left alone; the other's is cut to .1 by torch's own function, before Adam.
    ours, theirs = pair(), pair()
    own = FusedAdam([{"params": ours[0], "max_norm": 0.1}, {"params": ours[1]}], lr=1e-2)
    oracle = torch.optim.Adam([parameter for net in theirs for parameter in net.parameters()], lr=1e-2, fused=True)
    lengths = []
    for scale in (1.0, 1e-4, 10.0):  # longer than the bound, shorter, longer
        x = scale * torch.randn(5, 3)
        own.descend(loss_of(ours, x))
        clip = lambda: lengths.append(nn.utils.clip_grad_norm_(theirs[0].parameters(), 0.1))  # noqa: E731
        step(oracle, loss_of(theirs, x), clip)
    assert [float(length) > 0.1 for length in lengths] == [True, True, True]
    for mine, its in zip((*ours[0].parameters(), *ours[1].parameters()), oracle.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-7)
    assert same([ours[1]], [theirs[1]])


def test_a_cut_gradient_gives_the_moments_computed_by_hand() -> None:
    # (3, 4) has the length 5, cut to 1: (.6, .8). First moments .1·(.6, .8), second .001·(.36, .64).
    parameter = nn.Parameter(torch.zeros(2))
    own = FusedAdam([{"params": parameter, "max_norm": 1.0}], lr=0.5)
    own.descend((parameter * torch.tensor([3.0, 4.0])).sum())
    torch.testing.assert_close(own.state[parameter]["exp_avg"], torch.tensor([0.06, 0.08]), rtol=1e-5, atol=0)
    torch.testing.assert_close(own.state[parameter]["exp_avg_sq"], torch.tensor([3.6e-4, 6.4e-4]), rtol=1e-5, atol=0)
    # The first step of Adam is lr against the sign of the gradient.
    torch.testing.assert_close(parameter.detach(), torch.tensor([-0.5, -0.5]), rtol=1e-5, atol=0)


def test_a_short_gradient_is_not_stretched_to_the_norm() -> None:
    ours, theirs = pair(), pair()
    own = FusedAdam([{"params": net, "max_norm": 1e6} for net in ours], lr=1e-2)
    plain = FusedAdam(list(theirs), lr=1e-2)
    for _ in range(3):
        x = torch.randn(5, 3)
        own.descend(loss_of(ours, x))
        plain.descend(loss_of(theirs, x))
    assert same(ours, theirs)


def test_a_step_leaves_a_group_within_its_bounds_and_no_other() -> None:
    # The first step of Adam is lr = .5 against the gradient's sign: from 0 to −.5 and .5.
    bounded, free = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    own = FusedAdam([{"params": bounded, "bounds": (-0.2, 0.3)}, {"params": free}], lr=0.5)
    slope = torch.tensor([1.0, -1.0])
    own.descend((slope * bounded).sum() + (slope * free).sum())
    assert bounded.tolist() == pytest.approx([-0.2, 0.3])
    assert free.tolist() == pytest.approx([-0.5, 0.5])


def test_parameters_that_need_no_gradient_are_left_out_unless_none_does() -> None:
    net, frozen = pair()
    net[0].requires_grad_(False)
    frozen.requires_grad_(False)
    groups = FusedAdam([{"params": net}, {"params": frozen}], lr=1e-2).param_groups
    assert [len(group["params"]) for group in groups] == [2, 4]


def test_groups_go_through_a_state_dict_to_the_bit() -> None:
    def optimizer_of(nets: Any) -> FusedAdam:
        first = {"params": nets[0], "lr": 3e-2, "max_norm": 0.5}
        return FusedAdam([first, {"params": nets[1], "eps": 1e-3, "bounds": (-0.4, 0.4)}], lr=1e-2)

    ours, theirs = pair(), pair()
    optimizer, x = optimizer_of(ours), torch.randn(5, 3)
    for _ in range(3):
        optimizer.descend(loss_of(ours, x))
    for own, its in zip(ours, theirs, strict=True):
        its.load_state_dict(own.state_dict())
    resumed = optimizer_of(theirs)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    kept = [
        {key: group[key] for key in ("lr", "eps", "max_norm", "bounds") if key in group}
        for group in resumed.param_groups
    ]
    assert kept == [{"lr": 3e-2, "eps": 1e-8, "max_norm": 0.5}, {"lr": 1e-2, "eps": 1e-3, "bounds": (-0.4, 0.4)}]
    for _ in range(3):
        optimizer.descend(loss_of(ours, x))
        resumed.descend(loss_of(theirs, x))
    assert same(ours, theirs)


# ---- layers of another size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 4), (2, 4), (4, 3), (2, 6), (12,)])
@pytest.mark.parametrize("how", ["descend", "step", "loaded"])
def test_moments_of_another_shape_are_refused_and_nothing_steps(shape: tuple[int, ...], how: str) -> None:
    # (4, 3), (2, 6) and (12,) have the 12 numbers of (3, 4): the kernel would not notice.
    changed, other = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(2))
    own = FusedAdam([changed, other], lr=1e-2)
    own.descend(changed.sum() + other.sum())
    if how == "loaded":
        own.load_state_dict(copy.deepcopy(own.state_dict()))
    changed.data = torch.randn(shape)
    before = [changed.detach().clone(), other.detach().clone()]
    with pytest.raises(
        ConfigError, match=SHAPE_MESSAGE.format(str(shape).replace("(", r"\(").replace(")", r"\)"), r"\(3, 4\)")
    ):
        if how == "step":
            changed.grad, other.grad = torch.ones(shape), torch.ones(2)
            own.step()
        else:
            own.descend(changed.sum() + other.sum())
    assert torch.equal(changed, before[0])
    assert torch.equal(other, before[1])


def test_a_group_that_changed_is_refused_before_any_group_steps() -> None:
    nets = pair()
    own = FusedAdam([{"params": net} for net in nets], lr=1e-2)
    own.descend(loss_of(nets, torch.randn(5, 3)))
    nets[1][2].weight.data = torch.randn(2, 6)[[0]]
    nets[1][2].bias.data = torch.randn(1)
    before = copy.deepcopy(nets[0])
    with pytest.raises(ConfigError, match="has moments of shape"):
        own.descend(loss_of(nets, torch.randn(5, 3)))
    assert same([nets[0]], [before])


def test_units_removed_in_place_are_followed() -> None:
    net, _ = pair()
    own = FusedAdam([{"params": net, "max_norm": 1.0}], lr=1e-2)
    own.descend(loss_of([net], torch.randn(5, 3)))
    before = {p: own.state[p]["exp_avg"].clone() for p in net.parameters()}
    own.follow(keep_units(net[0], net[2], [1, 4, 6]))
    assert torch.equal(own.state[net[0].weight]["exp_avg"], before[net[0].weight][[1, 4, 6]])
    assert torch.equal(own.state[net[2].weight]["exp_avg"], before[net[2].weight][:, [1, 4, 6]])
    assert torch.equal(own.state[net[2].bias]["exp_avg"], before[net[2].bias])
    own.descend(loss_of([net], torch.randn(5, 3)))
    assert [float(own.state[p]["step"]) for p in net.parameters()] == [2.0] * 4


def test_layers_that_were_replaced_are_found_in_their_modules() -> None:
    nets = pair()
    own = FusedAdam([{"params": net, "lr": lr} for net, lr in zip(nets, (1e-2, 1e-3), strict=True)], lr=1.0)
    own.descend(loss_of(nets, torch.randn(5, 3)))
    old, moments = nets[0][0], own.state[nets[0][0].weight]["exp_avg"].clone()
    nets[0][0], tail = nn.Linear(3, 4), nn.Linear(4, 2)
    with torch.no_grad():
        nets[0][0].weight.copy_(old.weight[[0, 2, 4, 6]])
        nets[0][0].bias.copy_(old.bias[[0, 2, 4, 6]])
    nets[0][2] = tail
    own.follow()
    stepped = [parameter for group in own.param_groups for parameter in group["params"]]
    assert all(a is b for a, b in zip(stepped, (p for net in nets for p in net.parameters()), strict=True))
    assert set(own.state) == set(stepped)
    assert torch.equal(own.state[nets[0][0].weight]["exp_avg"], moments[[0, 2, 4, 6]])
    assert not own.state[tail.weight]["exp_avg"].any()
    before = copy.deepcopy(nets)
    own.descend(loss_of(nets, torch.randn(5, 3)))
    assert not same([nets[0]], [before[0]])
    assert [group["lr"] for group in own.param_groups] == [1e-2, 1e-3]


def test_following_before_the_first_step_takes_the_parameters_of_now() -> None:
    net, twin = pair()[0], pair()[0]
    own = FusedAdam(net, lr=1e-2)
    net[0] = copy.deepcopy(twin[0])
    own.follow()
    x = torch.randn(5, 3)
    own.descend(loss_of([net], x))
    step(torch.optim.Adam(twin.parameters(), lr=1e-2, fused=True), loss_of([twin], x))
    assert same([net], [twin])


def test_following_without_a_change_changes_no_number() -> None:
    ours, theirs = pair(), pair()
    own, plain = FusedAdam(list(ours), lr=1e-2), FusedAdam(list(theirs), lr=1e-2)
    for _ in range(3):
        x = torch.randn(5, 3)
        own.descend(loss_of(ours, x))
        own.follow()
        plain.descend(loss_of(theirs, x))
    assert same(ours, theirs)


def test_a_layer_that_is_put_in_starts_anew_and_leaves_the_others_their_moments() -> None:
    net, _ = pair()
    own = FusedAdam(net, lr=1e-2)
    own.descend(net(torch.ones(2, 3)).square().sum())
    before = {name: own.state[parameter]["exp_avg"].clone() for name, parameter in net.named_parameters()}
    net.append(nn.Linear(2, 2))
    own.follow()
    assert len(own.param_groups[0]["params"]) == len(before) + 2
    for name, parameter in list(net.named_parameters())[:-2]:
        assert torch.equal(own.state[parameter]["exp_avg"], before[name])
    own.descend(net(torch.ones(2, 3)).square().sum())
    assert all(own.state[parameter]["exp_avg"].abs().max() > 0 for parameter in net[-1].parameters())
    del net[-1]
    own.follow()
    assert len(own.param_groups[0]["params"]) == len(before)
    own.descend(net(torch.ones(2, 3)).square().sum())


def test_a_copy_made_with_its_modules_follows_its_own() -> None:
    net, _ = pair()
    own = FusedAdam(net, lr=1e-2)
    own.descend(loss_of([net], torch.randn(5, 3)))
    twin, optimizer = copy.deepcopy((net, own))
    optimizer.follow(keep_units(twin[0], twin[2], [0, 1]))
    optimizer.descend(loss_of([twin], torch.randn(5, 3)))
    assert [tuple(p.shape) for p in optimizer.param_groups[0]["params"]] == [(2, 3), (2,), (2, 2), (2,)]
    own.descend(loss_of([net], torch.randn(5, 3)))  # the original is as it was
