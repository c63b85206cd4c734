"""Traps that other libraries fell into, for all wrappers at once. Each test names one."""

import ast
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

import budget_wrappers.wrappers
from budget_wrappers.errors import MeterError
from budget_wrappers.metering import get_meter
from budget_wrappers.wrappers import (
    BudgetAwareObservation,
    ComputeLimit,
    ComputePenaltyReward,
    ComputeVectorReward,
    EarlyExitAction,
    RecordComputeStatistics,
    SubPolicyAction,
)
from budget_wrappers.wrappers.account import find_attribute
from tests import contracts
from tests.gymnasium_versions import AutoresetMode, sync
from tests.wrappers.environments import HORIZON, SpacesEnv, make

Layer = Callable[[gym.Env], gym.Env]
WRAPPERS: dict[str, Layer] = {
    "record": RecordComputeStatistics,
    "penalty": lambda env: ComputePenaltyReward(env, 0.01),
    "vector_reward": ComputeVectorReward,
    "limit": lambda env: ComputeLimit(env, 300, "truncate"),
    "options": lambda env: SubPolicyAction(env, ["cheap-box", "dear-box"], hold=2),
    "exits": lambda env: EarlyExitAction(env, "exits-box", hold=2),
    "hard_limit": lambda env: ComputeLimit(SubPolicyAction(env, ["cheap-box", "dear-box"], hold=2), 300),
    "observation": lambda env: BudgetAwareObservation(ComputeLimit(env, 300, "truncate")),
}
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())


def public_wrappers() -> list[type[gym.Wrapper]]:
    values = vars(budget_wrappers.wrappers).values()
    return [value for value in values if inspect.isclass(value) and issubclass(value, gym.Wrapper)]


def test_every_public_wrapper_has_a_contract() -> None:
    import importlib
    import pkgutil

    import tests.wrappers

    covered = set()
    for module in pkgutil.iter_modules(tests.wrappers.__path__):
        if module.name.startswith("test_"):
            members = vars(importlib.import_module(f"tests.wrappers.{module.name}")).values()
            covered |= {member.wrapper for member in members if inspect.isclass(member) and hasattr(member, "wrapper")}
    assert set(public_wrappers()) <= covered
    assert contracts.__name__ == "tests.contracts"


@pytest.mark.parametrize("wrapper", public_wrappers(), ids=lambda wrapper: wrapper.__name__)
def test_arguments_are_recorded_before_the_wrapper_is_built(wrapper: type[gym.Wrapper]) -> None:
    """In a chain of subclasses the first caller wins, and a spec is cached: too late is never."""
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(inspect.getsource(wrapper)))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".__init__")
    ]
    assert calls[0] == "RecordConstructorArgs.__init__"
    assert len(calls) == 2


@every_wrapper
def test_seed_and_options_arrive(wrap: Layer) -> None:
    """jaxrl's episode monitor dropped the seed."""
    env = wrap(make())
    env.reset(seed=11, options={"x": 1})
    assert env.unwrapped.resets[-1] == {"seed": 11, "options": {"x": 1}}


@every_wrapper
def test_the_environments_seed_governs_everything(wrap: Layer) -> None:
    env = wrap(make())
    env.reset(seed=11)
    assert env.np_random is env.unwrapped.np_random


@every_wrapper
def test_flags_are_pythons_bools(wrap: Layer) -> None:
    """``np.bool_`` fails ``check_env``."""
    env = wrap(make())
    env.reset()
    get_meter("policy").add(0)
    assert [type(flag) for flag in env.step(env.action_space.sample())[2:4]] == [bool, bool]


@every_wrapper
def test_two_steps_share_no_info(wrap: Layer) -> None:
    env = wrap(make())
    infos = [env.reset()[1]]
    for _ in range(3):
        get_meter("policy").add(0)
        infos.append(env.step(env.action_space.sample())[4])
    assert len({id(info) for info in infos}) == 4


@every_wrapper
def test_an_environment_that_hands_out_one_info_keeps_it(wrap: Layer) -> None:
    """The wrapper's keys go into a copy."""
    shared: dict[str, float] = {"own": 1.0}

    class OneInfo(gym.Wrapper):
        def reset(self, **kwargs: Any) -> Any:
            return self.env.reset(**kwargs)[0], shared

        def step(self, action: Any) -> Any:
            return (*self.env.step(action)[:4], shared)

    env = wrap(OneInfo(make()))
    env.reset()
    for _ in range(3):
        get_meter("policy").add(0)
        env.step(env.action_space.sample())
    assert shared == {"own": 1.0}


@every_wrapper
def test_attributes_are_reached_through_further_wrappers(wrap: Layer) -> None:
    """No ``__getattr__`` forwarding since Gymnasium 1.0."""
    env = gym.Wrapper(gym.Wrapper(wrap(make())))
    assert env.get_wrapper_attr("meter") is get_meter("policy")


@pytest.mark.parametrize("name", sorted(set(WRAPPERS) - {"vector_reward"}))  # Gymnasium's hold numbers as rewards
def test_infos_of_a_sync_vector_env_are_floats(name: str) -> None:
    """``_add_info`` takes the type of the first environment: an int 0 first would make 0.7 of the next one 0."""
    wrap = WRAPPERS[name]
    envs = SyncVectorEnv([lambda: wrap(make())] * 3)
    _, infos = envs.reset(seed=0)
    get_meter("policy").add(0)
    _, _, _, _, later = envs.step(envs.action_space.sample())
    numbers = [value for info in (infos, later) for key, value in info.items() if not key.startswith("_")]
    assert {value.dtype for value in numbers} <= {np.dtype(np.float64)}
    envs.close()


def test_costs_of_a_sync_vector_env_stand_in_the_final_info() -> None:
    """SAME_STEP: the last step's cost is in ``final_info``, and the top level holds the reset's 0."""
    envs = sync([lambda: RecordComputeStatistics(SpacesEnv(end_at=2))] * 2, AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    for _ in range(2):
        get_meter("policy").add(8)  # whoever is stepped first closes it
        _, _, _, _, infos = envs.step(envs.action_space.sample())
    assert infos["cost"].tolist() == [0.0, 0.0]
    assert infos["final_info"]["cost"].tolist() == [8.0, 0.0]
    assert infos["final_info"]["compute"]["flops"].tolist() == [16.0, 0.0]


def test_the_step_that_only_resets_costs_nothing() -> None:
    """NEXT_STEP: the action of that step is ignored; what it cost is dropped with the reset."""
    envs = SyncVectorEnv([lambda: RecordComputeStatistics(SpacesEnv(end_at=1))])
    envs.reset(seed=0)
    costs = []
    for _ in range(3):
        get_meter("policy").add(8)
        costs.append(float(envs.step(envs.action_space.sample())[4]["cost"][0]))
    assert costs == [8.0, 0.0, 8.0]


def test_a_worker_process_cannot_read_the_meter_silently() -> None:
    """Its meter counts nothing: a cost of 0 there would be a lie."""
    get_meter("policy").add(0)
    envs = AsyncVectorEnv([lambda: RecordComputeStatistics(SpacesEnv(end_at=1))] * 2)
    envs.reset(seed=0)
    with pytest.warns(UserWarning), pytest.raises(MeterError, match=r"in the main process, with .*wrappers\.vector"):
        envs.step(envs.action_space.sample())
    envs.close(terminate=True)


def test_budgets_reach_every_environment_of_a_vector_env() -> None:
    """By a call and not by ``set_attr``, which splits lists over environments and sees the outermost layer only."""
    envs = SyncVectorEnv([lambda: RecordComputeStatistics(ComputeLimit(make(), 300, "truncate"))] * 2)
    envs.call("set_budget", 500)
    envs.reset()
    assert envs.get_attr("remaining") == (500, 500)
    envs.reset(options={"budget": 700})
    assert envs.get_attr("remaining") == (700, 700)


def test_a_keyword_that_changes_nothing_would_be_found() -> None:
    """MO-Gymnasium accepted ``stats_key``, recorded it, and ignored it."""
    env = RecordComputeStatistics(make(), key="flops")
    env.reset()
    assert "flops" in env.step(env.action_space.sample())[4]
    assert find_attribute(env, "cost_key") == "flops"


@every_wrapper
def test_nothing_depends_on_a_clock(wrap: Layer) -> None:
    source = inspect.getsource(inspect.getmodule(type(wrap(make()))))
    assert "perf_counter" not in source
    assert "import time" not in source


@every_wrapper
def test_closing_twice_is_allowed(wrap: Layer) -> None:
    env = wrap(make())
    env.reset()
    env.close()
    env.close()


@every_wrapper
def test_an_episode_ends_when_its_environment_does(wrap: Layer) -> None:
    env = wrap(make())
    env.reset()
    get_meter("policy").add(0)
    steps = 0
    ended = False
    while not ended:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        ended, steps = terminated or truncated, steps + 1
    assert env.unwrapped.steps == HORIZON
    assert truncated is True
    assert terminated is False
