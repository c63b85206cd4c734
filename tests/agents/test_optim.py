"""The lean Adam against torch's."""

import copy

import pytest
import torch

from agents.common.mlp import MLP
from agents.common.optim import FusedAdam


def step(optimizer: torch.optim.Optimizer, net: MLP, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    net(x).square().sum().backward()
    optimizer.step()


@pytest.fixture
def nets():
    torch.manual_seed(0)
    net = MLP((3, 8, 2), "relu")
    return net, copy.deepcopy(net)


def test_twenty_steps_match_oracle_to_the_bit(nets):
    ours, theirs = nets
    own, oracle = FusedAdam(ours.parameters(), lr=1e-2), torch.optim.Adam(theirs.parameters(), lr=1e-2, fused=True)
    for _ in range(20):
        x = torch.randn(5, 3)
        own.descend(ours(x).square().sum())
        step(oracle, theirs, x)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_state_goes_through_a_state_dict_to_the_bit(nets):
    net, twin = nets
    optimizer, x = FusedAdam(net.parameters(), lr=1e-2), torch.randn(5, 3)
    step(optimizer, net, x)
    twin.load_state_dict(net.state_dict())
    resumed = FusedAdam(twin.parameters(), lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        step(optimizer, net, x)
        step(resumed, twin, x)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_clipped_gradient_is_no_longer_than_the_limit(nets):
    net, _ = nets
    optimizer = FusedAdam(net.parameters(), lr=1e-2)
    (1e3 * net(torch.randn(5, 3)).square().sum()).backward()
    optimizer.clip(0.5)
    length = torch.stack([parameter.grad.norm() for parameter in net.parameters()]).norm()
    assert length.item() == pytest.approx(0.5, rel=1e-5)


def test_short_gradient_is_not_stretched(nets):
    net, _ = nets
    optimizer = FusedAdam(net.parameters(), lr=1e-2)
    (1e-6 * net(torch.randn(5, 3)).square().sum()).backward()
    before = [parameter.grad.clone() for parameter in net.parameters()]
    optimizer.clip(10.0)
    assert all(torch.equal(a, p.grad) for a, p in zip(before, net.parameters(), strict=True))
