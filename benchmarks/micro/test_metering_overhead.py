"""What metering adds to a forward and to a step, beside torch's own counter.

``pytest benchmarks/micro/test_metering_overhead.py --benchmark-only --benchmark-group-by=group``: rows of one group ran
in one process, so that their ratios hold on any machine. The actor is 17→256→256→6 on one observation.
"""

from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from budget_wrappers.metering import ComputeMeter

ACTOR_FLOPS = 2 * (17 * 256 + 256 * 256 + 256 * 6)


class Branching(nn.Module):
    """A module of which nothing is known beforehand, so that it is counted operator by operator."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.fixture(autouse=True)
def _one_thread_without_gradients() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def actor() -> nn.Sequential:
    return nn.Sequential(nn.Linear(17, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 6)).eval()


@pytest.fixture
def observation() -> Tensor:
    return torch.randn(1, 17)


@pytest.mark.benchmark(group="forward")
class TestForward:
    def test_bare(self, benchmark: BenchmarkFixture, actor: nn.Module, observation: Tensor) -> None:
        benchmark(actor, observation)

    def test_an_empty_hook(self, benchmark: BenchmarkFixture, actor: nn.Module, observation: Tensor) -> None:
        actor.register_forward_hook(lambda module, args, output: None)
        benchmark(actor, observation)

    def test_watched_static(self, benchmark: BenchmarkFixture, actor: nn.Module, observation: Tensor) -> None:
        meter = ComputeMeter()
        meter.watch(actor)
        actor(observation)
        assert meter.take_flops() == ACTOR_FLOPS
        benchmark(actor, observation)

    def test_watched_and_counted(self, benchmark: BenchmarkFixture, actor: nn.Module, observation: Tensor) -> None:
        meter, module = ComputeMeter(), Branching(actor)
        meter.watch(module)
        module(observation)
        assert meter.take_flops() == ACTOR_FLOPS
        benchmark(module, observation)

    def test_torch_flop_counter(self, benchmark: BenchmarkFixture, actor: nn.Module, observation: Tensor) -> None:
        def counted() -> int:
            with FlopCounterMode(display=False) as counter:
                actor(observation)
            return counter.get_total_flops()

        assert benchmark(counted) == ACTOR_FLOPS


@pytest.mark.benchmark(group="account")
class TestAccount:
    def test_add_and_take_flops(self, benchmark: BenchmarkFixture) -> None:
        meter = ComputeMeter()

        def step() -> int:
            meter.add(100)
            return meter.take_flops()

        assert benchmark(step) == 100

    def test_take_flops(self, benchmark: BenchmarkFixture) -> None:
        benchmark(ComputeMeter().take_flops)

    def test_take(self, benchmark: BenchmarkFixture) -> None:
        benchmark(ComputeMeter().take)


def test_a_watched_static_forward_runs_our_hook_and_nothing_else(actor: nn.Module) -> None:
    meter = ComputeMeter()
    meter.watch(actor)
    with torch.no_grad():
        actor(torch.zeros(1, next(actor.parameters()).shape[1]))  # until then its parts are looked at, too
    assert len(actor._forward_hooks) == 1
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in actor.children())
