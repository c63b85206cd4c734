"""Modules within modules, several meters, and names."""

import gc

import pytest
import torch
from torch import nn

from benchmarks.counting_oracle import Gated
from budget_wrappers.errors import MeterError
from budget_wrappers.metering import ComputeMeter, count_flops
from tests.metering.modules import WRAPS, Custom


@WRAPS
def test_a_watched_part_of_a_watched_module_is_charged_once_under_its_own_name(meter: ComputeMeter, wrap: type) -> None:
    whole = wrap(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    inner = whole if isinstance(whole, nn.Sequential) else whole.inner
    meter.watch(whole, "policy")
    meter.watch(inner[2], "head")
    with torch.no_grad():
        whole(torch.randn(3, 4))
    spend = meter.take()
    assert spend.by_name == {"policy": 3 * 64, "head": 3 * 32}
    assert (spend.executed, spend.rows) == (3 * 96, 3)
    with torch.no_grad():
        inner[2](torch.randn(1, 8))
    assert meter.take().by_name == {"head": 32}


def test_the_whole_may_be_watched_after_its_part(meter: ComputeMeter, net: nn.Sequential) -> None:
    meter.watch(net[0], "first")
    meter.watch(net, "net")
    with torch.no_grad():
        net(torch.randn(1, 4))
    assert meter.take().by_name == {"first": 64, "net": 32}


def test_a_counted_part_of_a_counted_module_is_charged_once(meter: ComputeMeter) -> None:
    gated = Gated(3, 8, 2, 1e6)
    whole, x = Custom(gated), torch.randn(2, 3)
    meter.watch(whole, "whole")
    meter.watch(gated, "gated")
    with torch.no_grad():
        whole(x)
    assert meter.take().by_name == {"gated": count_flops(gated, x)}


def test_a_module_watched_twice_is_charged_once(meter: ComputeMeter, net: nn.Module) -> None:
    first, second = meter.watch(net), meter.watch(net)
    assert first is second
    with torch.no_grad():
        net(torch.randn(1, 4))
    assert meter.take_flops() == 96
    second.remove()
    with torch.no_grad():
        net(torch.randn(1, 4))
    assert meter.take_flops() == 96
    first.remove()
    with torch.no_grad():
        net(torch.randn(1, 4))
    assert meter.take_flops() == 0


@WRAPS
def test_two_meters_count_one_module_each_for_itself(net: nn.Module, wrap: type) -> None:
    one, other, module = ComputeMeter(), ComputeMeter(), wrap(net)
    with one.watch(module), other.watch(module.inner if module is not net else net[0]), torch.no_grad():
        module(torch.randn(1, 4))
    assert one.take_flops() == 96
    assert other.take_flops() == (96 if module is not net else 64)


def test_a_name_in_use_is_refused_with_the_remedies(meter: ComputeMeter, net: nn.Module) -> None:
    other = nn.Linear(2, 2)
    meter.watch(net, "actor")
    with pytest.raises(MeterError, match=r"Sequential under the name 'actor' already.*Linear.*shared=True"):
        meter.watch(other, "actor")
    assert not other._forward_hooks
    meter.watch(other, "actor", shared=True)
    with torch.no_grad():
        net(torch.randn(1, 4))
        other(torch.randn(1, 2))
    assert meter.take().by_name == {"actor": 96 + 8}


def test_a_name_is_free_again_once_its_module_is_gone(meter: ComputeMeter) -> None:
    class Cyclic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.itself = [self]

    meter.watch(Cyclic(), "actor")
    meter.watch(nn.Linear(2, 2), "actor")  # kept alive by nobody: a cycle is collected before a name is refused
    gc.collect()
    meter.watch(nn.Linear(2, 2), "actor")


def test_a_meter_does_not_keep_a_module_alive(meter: ComputeMeter) -> None:
    module = nn.Linear(2, 2)
    meter.watch(module, "actor")
    assert meter.watched() == {"actor": [module]}
    del module
    gc.collect()
    assert meter.watched() == {}


def test_unwatching_what_is_not_watched_is_refused(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net, "actor")
    with pytest.raises(MeterError, match=r"does not watch this Linear; watched: 'actor'"):
        meter.unwatch(nn.Linear(1, 1))
    meter.unwatch()
    assert meter.watched() == {}


def test_only_modules_can_be_watched(meter: ComputeMeter) -> None:
    with pytest.raises(MeterError, match=r"got a function; expected a torch.nn.Module.*meter.add"):
        meter.watch(lambda x: x)
