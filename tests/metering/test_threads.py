"""Silence belongs to the thread or task that counts, and never to the process."""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from budget_wrappers.errors import MeterError
from budget_wrappers.metering import ComputeMeter, count_flops
from tests.metering.modules import Custom


def at_once(*runs: Callable[[], None]) -> None:
    """Run each in a thread of its own, started together, and raise what one of them raised."""
    gate = threading.Barrier(len(runs))
    with ThreadPoolExecutor(len(runs)) as threads:
        futures = [threads.submit(lambda run=run: (gate.wait(), run())) for run in runs]
    for future in futures:
        future.result()


class Inside(nn.Module):
    """2·4·2 = 16 FLOPs a row; says that it is inside its forward and waits there."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.entered, self.leave = nn.Linear(4, 2), threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.entered.set()
        assert self.leave.wait(20)
        return self.layer(x)


def elsewhere(run: Callable[[], None]) -> BaseException | None:
    """Run in another thread, to its end, and return what it raised."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).exception(20)


@pytest.mark.parametrize("wrap", [lambda net: net, Custom], ids=["static", "counted"])
def test_each_thread_charges_its_meter_while_others_count_new_shapes(wrap: Callable[[nn.Module], nn.Module]) -> None:
    meters, right = [ComputeMeter(str(k)) for k in range(4)], [0] * 4

    def act(k: int) -> None:
        draw, net = random.Random(k), wrap(nn.Linear(8, 4))  # 2·8·4 = 64 FLOPs a row
        meters[k].watch(net)
        with torch.no_grad():
            for _ in range(60):
                rows = draw.randint(1, 400)
                net(torch.zeros(rows, 8))
                right[k] += 64 * rows

    at_once(*(lambda k=k: act(k) for k in range(4)))
    assert [meter.executed for meter in meters] == right
    assert [meter.mode for meter in meters] == [0] * 4


def test_a_charge_arrives_while_another_thread_counts(meter: ComputeMeter) -> None:
    slow = Inside()
    counting = threading.Thread(target=lambda: count_flops(slow, torch.zeros(1, 4)))
    counting.start()
    assert slow.entered.wait(20)
    meter.add(7)
    slow.leave.set()
    counting.join(20)
    assert meter.executed == 7


def test_overlapping_counts_leave_every_meter_charging(meter: ComputeMeter, net: nn.Module) -> None:
    first, second = Inside(), Inside()
    threads = [
        threading.Thread(target=lambda slow=slow: count_flops(slow, torch.zeros(1, 4))) for slow in (first, second)
    ]
    threads[0].start()
    assert first.entered.wait(20)
    threads[1].start()
    second.entered.wait(0.2)  # a second count may wait for the first
    first.leave.set()
    threads[0].join(20)
    second.leave.set()
    threads[1].join(20)
    with meter.watch(net), torch.no_grad():
        net(torch.zeros(1, 4))
    assert meter.executed == 96


def test_acting_is_charged_while_another_meter_learns_in_a_second_thread(net: nn.Module) -> None:
    actor, learner = ComputeMeter("actor"), ComputeMeter("learner")
    inside, leave = threading.Event(), threading.Event()

    def learn() -> None:
        with learner.phase("learn"):
            inside.set()
            assert leave.wait(20)

    thread = threading.Thread(target=learn)
    thread.start()
    assert inside.wait(20)
    with actor.watch(net), torch.no_grad():
        net(torch.zeros(3, 4))
    leave.set()
    thread.join(20)
    assert (actor.executed, learner.learned) == (3 * 96, 0)


USES = {
    "forward": lambda meter, net: net(torch.zeros(1, 4)),
    "add": lambda meter, net: meter.add(1),
    "take": lambda meter, net: meter.take(),
    "take_flops": lambda meter, net: meter.take_flops(),
    "discard": lambda meter, net: meter.discard(),
    "phase": lambda meter, net: meter.phase("learn").__enter__(),
    "paused": lambda meter, net: meter.paused().__enter__(),
    "watch": lambda meter, net: meter.watch(nn.Linear(1, 1), "another"),
}


ENTERS = {
    "learning": lambda meter: meter.phase("learn"),
    "acting": lambda meter: meter.phase("act"),
    "paused": lambda meter: meter.paused(),
    "aside": lambda meter: meter.aside(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("enter", ENTERS.values(), ids=ENTERS)
def test_a_second_thread_that_uses_a_meter_in_a_phase_of_the_first_is_refused(
    meter: ComputeMeter,
    net: nn.Module,
    enter: Callable[[ComputeMeter], object],
    use: Callable[[ComputeMeter, nn.Module], object],
) -> None:
    meter.watch(net)
    with enter(meter):
        raised = elsewhere(lambda: use(meter, net))
    assert isinstance(raised, MeterError)
    assert "second thread" in str(raised)
    with torch.no_grad():  # and the first goes on
        net(torch.zeros(1, 4))
    assert meter.take_flops() == 96


def test_a_second_thread_in_a_counted_forward_of_the_first_is_refused_and_nothing_is_lost(meter: ComputeMeter) -> None:
    slow, other = Inside(), Custom(nn.Linear(4, 2))
    meter.watch(slow, "slow"), meter.watch(other, "other")
    with torch.no_grad():
        thread = threading.Thread(target=torch.no_grad()(lambda: slow(torch.zeros(2, 4))))
        thread.start()
        assert slow.entered.wait(20)
        with pytest.raises(MeterError, match="second thread"):
            other(torch.zeros(1, 4))
        slow.leave.set()
        thread.join(20)
        other(torch.zeros(1, 4))
    assert dict(meter.by_name) == {"slow": 2 * 16, "other": 16}


def test_a_thread_that_died_inside_holds_nobody_up(meter: ComputeMeter) -> None:
    phases = []

    def die() -> None:
        phases.append(meter.phase("act"))
        phases[0].__enter__()

    assert elsewhere(die) is None
    meter.mode = 0
    meter.add(5)
    assert meter.executed == 5


def test_a_task_that_acts_while_another_one_learns_is_refused(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net)

    async def both() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def learn() -> None:
            with meter.phase("learn"):
                inside.set()
                await leave.wait()

        task = asyncio.create_task(learn())
        await inside.wait()
        try:
            with torch.no_grad(), pytest.raises(MeterError, match="second task"):
                net(torch.zeros(1, 4))
        finally:
            leave.set()
            await task

    asyncio.run(both())


def test_a_task_that_acts_on_its_own_meter_while_another_learns_is_no_part_of_that(net: nn.Module) -> None:
    actor, learner, mine = ComputeMeter("actor"), ComputeMeter("learner"), nn.Linear(4, 2)
    actor.watch(net)

    async def both() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def learn() -> None:
            with learner.phase("learn"):
                inside.set()
                await leave.wait()
                mine(torch.ones(1, 4))  # 2·4·2 = 16

        task = asyncio.create_task(learn())
        await inside.wait()
        with torch.no_grad():
            net(torch.zeros(1, 4))
        leave.set()
        await task

    asyncio.run(both())
    assert (actor.executed, learner.learned) == (96, 16)


def test_phases_of_two_meters_end_in_any_order() -> None:
    meters, nets = [ComputeMeter("a"), ComputeMeter("b")], [nn.Linear(4, 2), nn.Linear(4, 2)]

    def acting(k: int) -> Iterator[None]:
        with meters[k].phase("act"):
            while True:
                nets[k](torch.zeros(1, 4))
                yield

    for meter, net in zip(meters, nets, strict=True):
        meter.watch(net)
    one, two = acting(0), acting(1)
    next(one), next(two)
    one.close()
    next(two)
    assert [meter.executed for meter in meters] == [16, 32]


def test_phases_of_one_meter_end_in_any_order(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net)

    def inside(phase: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        with phase():
            yield

    one, two = inside(meter.paused), inside(lambda: meter.phase("act"))
    next(one), next(two)
    one.close(), two.close()
    with torch.no_grad():
        net(torch.zeros(1, 4))
    assert (meter.executed, meter.mode) == (96, 0)


def test_threads_one_after_the_other_share_a_meter(meter: ComputeMeter, net: nn.Module) -> None:
    meter.watch(net)
    for _ in range(2):
        assert elsewhere(torch.no_grad()(lambda: net(torch.zeros(1, 4)))) is None
    assert meter.take_flops() == 2 * 96


# ---- what counting leaves alone --------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Draws, and says so while it waits."""

    def __init__(self, draw: Callable[[], object]) -> None:
        super().__init__()
        self.draw, self.entered, self.leave = draw, threading.Event(), threading.Event()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.draw()
        self.entered.set()
        assert self.leave.wait(20)
        return self.layer(x)


DRAWS = {
    "torch": lambda: torch.rand(()).item(),
    "torch normal": lambda: torch.randn(()).item(),
    "torch dropout": lambda: hash(tuple(nn.functional.dropout(torch.ones(64), 0.5).tolist())),
    "numpy": lambda: float(np.random.random()),  # noqa: NPY002
    "python": random.random,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_no_thread_draws_the_same_noise_twice_because_another_one_counts(draw: Callable[[], float]) -> None:
    slow, drawn = Noisy(lambda: None), []
    thread = threading.Thread(target=lambda: count_flops(slow, torch.zeros(1, 4)))
    thread.start()
    assert slow.entered.wait(20)
    drawn += [draw(), draw()]
    slow.leave.set()
    thread.join(20)
    drawn += [draw(), draw()]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    "draw", [DRAWS["torch"], DRAWS["torch normal"], DRAWS["torch dropout"]], ids=["rand", "randn", "dropout"]
)
def test_what_is_counted_draws_from_generators_of_its_own(draw: Callable[[], float]) -> None:
    alone = threading.Event()
    idle = threading.Thread(target=lambda: alone.wait(20))  # with a second thread nothing global may be put back
    idle.start()
    try:
        net = Noisy(draw)
        net.leave.set()
        before = torch.get_rng_state()
        assert count_flops(net, torch.zeros(1, 4)) == 16
        assert torch.equal(torch.get_rng_state(), before)
    finally:
        alone.set()
        idle.join()


def test_attention_of_other_threads_keeps_its_fast_path_while_one_counts() -> None:
    slow = Inside()
    thread = threading.Thread(target=lambda: count_flops(slow, torch.zeros(1, 4)))
    thread.start()
    assert slow.entered.wait(20)
    fast = torch.backends.mha.get_fastpath_enabled()
    slow.leave.set()
    thread.join(20)
    assert fast
