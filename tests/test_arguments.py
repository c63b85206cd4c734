"""Constructors refuse nonsense at once, by name; what the fuzz found is kept here by kind."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from agents import SAC
from agents.loop.callbacks import Every, StopOnReturn
from agents.loop.evaluate import evaluate_policy
from agents.replay.buffers import ReplayBuffer
from agents.replay.prioritized import PrioritizedReplay
from budget_wrappers.deploy.engines import EnginePolicy
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy
from budget_wrappers.errors import BudgetError
from budget_wrappers.functional.budget_lp import solve_batch_lp, solve_exit_lp
from budget_wrappers.functional.sparsity import layer_sparsities
from budget_wrappers.metering import ComputeMeter, measure_energy, measure_latency
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.masks import ScheduledMasks
from budget_wrappers.modules.surgery import keep_units
from budget_wrappers.policies import AgentPolicy, ExitPolicy, FunctionPolicy, ModulePolicy, load_sub_policy
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.retrofit import TrainedActor
from budget_wrappers.selection import random
from budget_wrappers.selection.gates import GateTeacher
from budget_wrappers.wrappers import (
    BudgetAwareObservation,
    ComputeLimit,
    ComputePenaltyReward,
    RecordComputeStatistics,
)
from budget_wrappers.wrappers import vector as vectors
from tests.gymnasium_versions import AutoresetMode, sync


def cart_pole() -> gym.Env:
    return gym.make("CartPole-v1")


def limited() -> gym.Env:
    return ComputeLimit(cart_pole(), 100, "truncate", meter=ComputeMeter())


class Agent:
    def predict(self, observation: Any, deterministic: bool = True) -> tuple[int, None]:
        return 0, None


def network() -> EarlyExitNetwork:
    return EarlyExitNetwork(4, 2, (4, 4))


ACCEPTED_BEFORE: dict[str, Callable[[], Any]] = {
    "a function that is a number": lambda: FunctionPolicy(5, 10, "a"),
    "a name that is a number": lambda: FunctionPolicy(lambda o: 0, 10, 5),
    "an agent's name that is a list": lambda: AgentPolicy(Agent(), 10, name=[1]),
    "a flag that is text": lambda: AgentPolicy(Agent(), 10, deterministic="no"),
    "an act that is text": lambda: ExitPolicy(network(), act="x"),
    "a network without inputs": lambda: EarlyExitNetwork(0, 2, (4,)),
    "hidden layers of bytes": lambda: EarlyExitNetwork(4, 2, b"x"),
    "a flatten that is text": lambda: BudgetAwareObservation(limited(), flatten="no"),
    "a dict_key that is a number": lambda: BudgetAwareObservation(limited(), dict_key=5),
    "stable_info that is text": lambda: RecordComputeStatistics(cart_pole(), ComputeMeter(), stable_info="no"),
    "an engine's meter that is text": lambda: EnginePolicy(
        TrainedActor([nn.Linear(4, 3), nn.Linear(3, 2)], "relu", ActionMap("argmax")), "numpy", "x"
    ),
    "a budget that is true": lambda: BudgetedExitPolicy(network(), ActionMap("argmax"), True),
    "an action map that is a number": lambda: BudgetedExitPolicy(network(), 5, 0.5),
    "a discount that is text": lambda: ReplayBuffer(8, (2,), (), gamma="x"),
    "an exponent that is NaN": lambda: PrioritizedReplay(8, (2,), (), alpha=float("nan")),
    "a period that is NaN": lambda: Every(float("nan")),
    "a threshold that is text": lambda: StopOnReturn("x"),
    "a schedule that is a number": lambda: ScheduledMasks(nn.Sequential(nn.Linear(2, 2)), 5),
    "a generator that is a number": lambda: random(2, 5),
    "a sparsity above 1": lambda: layer_sparsities([(2, 2)], 2**70, "erk"),
    "a floor that is true": lambda: ComputePenaltyReward(cart_pole(), 0.1, True, ComputeMeter()),
    "shared that is a number": lambda: ComputeMeter().watch(nn.Linear(1, 1), shared=5),
}
OTHERS_ERRORS_BEFORE: dict[str, Callable[[], Any]] = {
    "an agent's meter": lambda: SAC(gym.make("Pendulum-v1"), meter=5),
    "an agent's environment": lambda: SAC(None),
    "a module that is a number": lambda: ModulePolicy(5, lambda n, o: o, np.zeros(4)),
    "values that are a list": lambda: solve_exit_lp([[0.0, 1.0]], [0.0, 1.0], 0.5),
    "a budget beyond float64": lambda: solve_batch_lp(torch.zeros(2, 2), [0.0, 1.0], 10**400),
    "feedback beyond float64": lambda: GateTeacher([1, 2], 0.5, temperature=10**400),
    "a weight beyond float64": lambda: ComputePenaltyReward(cart_pole(), 10**400, None, ComputeMeter()),
    "a device that torch does not know": lambda: measure_latency(lambda: None, samples=2, warmup=0, device="x"),
    "text for a period": lambda: Every(np.array("x")),
    "a wide layer": lambda: EarlyExitNetwork(4, 10**18, (4,)),
    "a policy without predict": lambda: evaluate_policy(5, cart_pole(), 1),
    "a layer that is a number": lambda: keep_units(5, nn.Linear(2, 2), [0]),
    "a reference that is a number": lambda: load_sub_policy(5),
    "samples that fit no memory": lambda: measure_latency(lambda: None, samples=10**18, warmup=0),
    "watts that are a tensor": lambda: measure_energy(lambda: None, seconds=1e-4, watts=torch.zeros(2)),
    "a replay that fits no memory": lambda: ReplayBuffer(2**39, (2**10,), ()),
}


@pytest.mark.parametrize("case", [*ACCEPTED_BEFORE, *OTHERS_ERRORS_BEFORE])
def test_nonsense_is_refused_by_an_error_of_the_project(case: str) -> None:
    with pytest.raises(BudgetError, match=r"expected|is no sub-policy"):
        pytest.fail(f"accepted: {(ACCEPTED_BEFORE | OTHERS_ERRORS_BEFORE)[case]()!r}")


# ---- masks of resets ------------------------------------------------------------------------------------------------


def recorded() -> Any:
    return vectors.RecordComputeStatistics(sync([cart_pole] * 2, AutoresetMode.DISABLED), meter=ComputeMeter())


def budgeted() -> Any:
    return vectors.BudgetAwareObservation(sync([cart_pole] * 2, AutoresetMode.DISABLED), "budget")


@pytest.mark.parametrize("make", [recorded, budgeted])
@pytest.mark.parametrize("mask", [[True, False], (True, False), np.array([True, False])], ids=repr)
def test_a_masked_reset_takes_any_sequence_of_booleans(make: Any, mask: Any) -> None:
    envs = make()
    before, _ = envs.reset(seed=0)
    after, _ = envs.reset(options={"reset_mask": mask})
    assert (before[0] != after[0]).any()
    assert (before[1] == after[1]).all()


@pytest.mark.parametrize("make", [recorded, budgeted])
@pytest.mark.parametrize("mask", [[1, 0], "x", [False, False], [[True, False]], 5], ids=repr)
def test_what_is_no_mask_is_refused(make: Any, mask: Any) -> None:
    envs = make()
    envs.reset(seed=0)
    with pytest.raises(BudgetError, match=r"reset_mask.*expected a boolean for each environment"):
        envs.reset(options={"reset_mask": mask})
