"""Acting and learning are two accounts: phases, gradients, and updates measured once."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from budget_wrappers.core import Spend
from budget_wrappers.errors import MeterError, UncountableError
from budget_wrappers.metering import ComputeMeter


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter()


class Learner:
    """An actor that is watched and a critic that is not, with a loss that bypasses the actor's ``forward``."""

    def __init__(self) -> None:
        self.actor = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        self.critic = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
        self.target = copy.deepcopy(self.critic)
        self.optimizer = torch.optim.Adam([*self.actor.parameters(), *self.critic.parameters()])

    def update(self, rows: int) -> None:
        obs = torch.randn(rows, 3)
        with torch.no_grad():
            goal = self.target(torch.cat([obs, self.actor(obs)], 1))
        action = self.actor[2](torch.tanh(self.actor[0](obs)))
        loss = (self.critic(torch.cat([obs, action], 1)) - goal).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def torch_count(function: object, *args: object) -> int:
    with FlopCounterMode(display=False) as counter:
        function(*args)
    return counter.get_total_flops()


def test_a_learning_phase_counts_what_torch_counts_forward_and_backward(meter: ComputeMeter) -> None:
    learner = Learner()
    meter.watch(learner.actor)
    expected = torch_count(learner.update, 16)
    meter.reset_totals()
    with meter.phase("learn"):
        learner.update(16)
    assert meter.take() == Spend(learned=expected)


def test_an_update_is_counted_once_a_key_and_then_added(meter: ComputeMeter) -> None:
    learner = Learner()
    expected = {rows: torch_count(learner.update, rows) for rows in (4, 16)}
    for rows in (4, 16, 4, 4, 16):
        with meter.phase("learn", key=("update", rows)):
            learner.update(rows)
    assert meter.totals["learn"] == 3 * expected[4] + 2 * expected[16]


def test_with_a_known_key_no_counter_runs(meter: ComputeMeter) -> None:
    with meter.phase("learn", key="k"):
        pass
    with meter.phase("learn", key="k"):
        assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


def test_an_update_that_fails_is_charged_for_what_ran_and_not_remembered(meter: ComputeMeter) -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="broken"), meter.phase("learn", key="k"):
        layer(torch.zeros(1, 2))
        raise ValueError("broken")
    assert meter.totals["learn"] == 8
    with meter.phase("learn", key="k"):
        layer(torch.zeros(2, 2))
    assert meter.totals["learn"] == 8 + 16


def test_an_operator_that_cannot_be_counted_is_refused_while_learning_too(meter: ComputeMeter) -> None:
    with pytest.raises(UncountableError, match=r"prims\.sin"), meter.phase("learn"):
        torch.ops.prims.sin(torch.zeros(4))


def test_the_meters_mode_is_put_back_after_a_phase(meter: ComputeMeter) -> None:
    net = nn.Linear(2, 2)
    meter.watch(net)
    with meter.phase("learn"):
        net(torch.zeros(1, 2))
    with torch.no_grad():
        net(torch.zeros(1, 2))
    assert meter.take() == Spend(executed=8, charged=8, learned=8, rows=1, by_name={"policy": 8})


def test_acting_within_a_learning_phase_is_acting_and_not_learning(meter: ComputeMeter) -> None:
    net, x = nn.Linear(2, 2), torch.zeros(1, 2)
    meter.watch(net)
    with meter.phase("learn"):
        net(x)
        with meter.phase("act"):
            net(x)
        net(x)
    spend = meter.take()
    assert (spend.learned, spend.executed) == (16, 8)


def test_a_learning_phase_within_another_counts_once(meter: ComputeMeter) -> None:
    net, x = nn.Linear(2, 2), torch.zeros(1, 2)
    for _ in range(2):
        with meter.phase("learn", key="outer"):
            net(x)
            with meter.phase("learn", key="inner"):
                net(x)
    assert meter.totals["learn"] == 2 * 16


def test_pausing_stops_a_learning_count(meter: ComputeMeter) -> None:
    net, x = nn.Linear(2, 2), torch.zeros(1, 2)
    with meter.phase("learn"), meter.paused():
        net(x)
        meter.add(100)
    with meter.paused(), meter.phase("learn"):
        net(x)
    assert meter.totals == {"act": 0, "charged": 0, "learn": 0, "rows": 0}


def test_pausing_stops_the_count_of_a_forward_that_is_running(meter: ComputeMeter) -> None:
    class Delegating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            with meter.paused():
                x = self.layer(x)
            return self.layer(x)

    module = Delegating()
    with meter.watch(module), torch.no_grad():
        module(torch.zeros(1, 2))
    assert meter.take_flops() == 8


def test_a_charge_by_hand_while_learning_is_learning(meter: ComputeMeter) -> None:
    with meter.phase("learn"):
        meter.add(100)
    assert meter.totals == {"act": 0, "charged": 0, "learn": 100, "rows": 0}


# ---- without a phase ------------------------------------------------------------------------------------------------


class Custom(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


WRAPS = pytest.mark.parametrize("wrap", [lambda net: net, Custom], ids=["static", "counted"])


@WRAPS
def test_a_forward_that_autograd_records_is_learning_and_its_backward_twice_that(
    meter: ComputeMeter, wrap: type
) -> None:
    net = wrap(nn.Linear(2, 2))
    meter.watch(net)
    out = net(torch.zeros(3, 2))
    assert meter.take() == Spend(learned=24)
    out.sum().backward()
    assert meter.take() == Spend(learned=48)


@WRAPS
def test_a_backward_pass_is_charged_once_however_often_gradients_arrive(meter: ComputeMeter, wrap: type) -> None:
    net = wrap(nn.Linear(2, 2))
    meter.watch(net)
    out = net(torch.zeros(1, 2))
    (out.sum() + out.square().sum()).backward()
    assert meter.totals["learn"] == 3 * 8


def test_a_backward_pass_in_a_learning_phase_is_counted_there_alone(meter: ComputeMeter) -> None:
    net = nn.Linear(2, 2)
    meter.watch(net)
    out = net(torch.zeros(1, 2))
    with meter.phase("learn"):
        out.sum().backward()
    assert meter.totals["learn"] == 8 + 8  # the forward, and the weight's gradient: nobody asked for the input's


@WRAPS
def test_a_phase_makes_a_forward_with_gradients_acting(meter: ComputeMeter, wrap: type) -> None:
    net = wrap(nn.Linear(2, 2))
    meter.watch(net)
    with meter.phase("act"):
        net(torch.zeros(1, 2)).sum().backward()
    assert meter.take() == Spend(executed=8, charged=8, rows=1, by_name={"policy": 8})


@WRAPS
def test_a_frozen_module_that_records_nothing_is_acting(meter: ComputeMeter, wrap: type) -> None:
    net = wrap(nn.Linear(2, 2)).requires_grad_(False)
    meter.watch(net)
    net(torch.zeros(1, 2))
    assert meter.take().executed == 8


def test_a_watched_part_of_a_watched_module_learns_once(meter: ComputeMeter) -> None:
    net = Custom(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    meter.watch(net, "net")
    meter.watch(net.inner[0], "first")
    net(torch.zeros(1, 2)).sum().backward()
    assert meter.totals["learn"] == 3 * 16


@pytest.mark.parametrize(("phase", "key"), [("train", None), ("act", "k")])
def test_other_phases_and_keys_for_acting_are_refused(meter: ComputeMeter, phase: str, key: object) -> None:
    with pytest.raises(MeterError, match="phase"):
        meter.phase(phase, key)


def test_a_compiled_update_is_counted_as_the_python_it_came_from(meter: ComputeMeter) -> None:
    weight = torch.randn(2, 2, requires_grad=True)
    update = torch.compile(lambda x: (x @ weight).sum(), backend="eager")
    with meter.phase("learn"):
        update(torch.zeros(3, 2)).backward()
    assert meter.totals["learn"] == 24 + 24
