"""Traps of PettingZoo's two APIs that other wrappers fell into, for all of ours at once. Each test names one."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pettingzoo
import pytest
from pettingzoo.utils import aec_to_parallel, parallel_to_aec
from pettingzoo.utils.wrappers import BaseParallelWrapper, BaseWrapper, OrderEnforcingWrapper

from budget_wrappers.errors import ConfigError, MeterError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers.multi_agent import aec, parallel
from tests.wrappers.multi_agent.environments import (
    AGENTS,
    STACKS,
    STEPS,
    Team,
    of_kind,
    over_choices,
    play,
    spent,
    sub_policies,
    turns,
    use_meters,
)

both = pytest.mark.parametrize("make", [Team, turns], ids=["parallel", "aec"])
every_stack = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS.keys())
KINDS = {"parallel": parallel, "aec": aec}


def sample(env: Any) -> Callable[[str, int], Any]:
    """Return a policy of legal actions, the same each time."""

    def choose(agent: str, number: int) -> Any:
        space = env.action_space(agent)
        return number % 2 if hasattr(space, "n") else np.zeros(space.shape, space.dtype)

    return choose


@both
@every_stack
def test_spaces_are_the_same_object_at_each_call(make: Any, stack: Callable[[Any], Any]) -> None:
    """``parallel_api_test`` compares with ``is``, so that seeding a space lasts."""
    env = stack(make())
    for agent in AGENTS:
        assert env.observation_space(agent) is env.observation_space(agent)
        assert env.action_space(agent) is env.action_space(agent)


@both
def test_wrappers_in_between_hide_nothing(make: Any) -> None:
    """PettingZoo's wrappers refuse to hand on private names."""
    env = make()
    kind, between = of_kind(env), BaseParallelWrapper if of_kind(env) is parallel else BaseWrapper
    env = between(kind.SubPolicyAction(env, sub_policies(env)))
    env = between(kind.ComputeLimit(env, team_max_flops=3 * STEPS * 10))
    env = between(kind.RecordComputeStatistics(between(env)))
    env = between(kind.BudgetAwareObservation(between(kind.ComputePenaltyReward(env, 0.01))))
    infos = play(env, lambda agent, number: 1)
    account = (dict(infos) if isinstance(infos[0], tuple) else infos[-1])["agent_0"]["compute"]
    assert (account["flops"], account["return_raw"]) == (40.0, 10.0)
    assert account["return_penalised"] == pytest.approx(10 - 0.4)
    assert (env.remaining(), env.team_summary()["flops"]) == (0, 120.0)


@every_stack
def test_an_aec_stack_is_built_before_the_first_reset(stack: Callable[[Any], Any]) -> None:
    """An order-enforcing wrapper inside refuses ``agents`` and the like until then, and so do we."""
    env = stack(turns())
    with pytest.raises(AttributeError, match="before reset"):
        env.agents  # noqa: B018
    OrderEnforcingWrapper(env).reset()
    assert env.agents == list(AGENTS)


@both
@every_stack
def test_seed_and_options_arrive(make: Any, stack: Callable[[Any], Any]) -> None:
    env = stack(make())
    env.reset(seed=11, options={"x": 1})
    assert env.unwrapped.resets[-1] == (11, {"x": 1})


@every_stack
def test_every_dictionary_has_the_agents_that_were_alive(stack: Callable[[Any], Any]) -> None:
    env = stack(Team(deaths={"agent_1": 2}))
    choose = sample(env)
    observations, infos = env.reset()
    assert set(observations) == set(infos) == set(AGENTS)
    while env.agents:
        live = set(env.agents)
        for entries in env.step({agent: choose(agent, 0) for agent in live}):
            assert set(entries) == live


@both
@every_stack
def test_nobody_revives(make: Any, stack: Callable[[Any], Any]) -> None:
    env = stack(make(deaths={"agent_1": 2}))
    infos = play(env, sample(env))
    if not isinstance(infos[0], tuple):
        assert [sorted(step) for step in infos] == [list(AGENTS)] * 2 + [["agent_0", "agent_2"]] * (STEPS - 2)
    assert env.agents == []


@both
@every_stack
def test_unwrapped_is_the_environment_itself(make: Any, stack: Callable[[Any], Any]) -> None:
    assert type(stack(make()).unwrapped) is Team


@both
@every_stack
def test_two_steps_share_no_info_and_the_environments_own_stays_as_it_is(
    make: Any, stack: Callable[[Any], Any]
) -> None:
    env = stack(make())
    infos = play(env, sample(env))
    found = [info for _, info in infos] if isinstance(infos[0], tuple) else [i for step in infos for i in step.values()]
    assert len({id(info) for info in found}) == len(found)


def test_an_environment_that_hands_out_one_info_keeps_it() -> None:
    shared: dict[str, dict[str, Any]] = {agent: {"own": 1.0} for agent in AGENTS}

    class OneInfo(BaseParallelWrapper):
        def reset(self, seed: Any = None, options: Any = None) -> Any:
            return self.env.reset(seed, options)[0], shared

        def step(self, actions: Any) -> Any:
            return *self.env.step(actions)[:4], shared

    for stack in STACKS.values():
        env = stack(OneInfo(Team()))
        play(env, sample(env))
    assert shared == {agent: {"own": 1.0} for agent in AGENTS}


@both
@every_stack
def test_a_pickled_and_a_copied_stack_play_the_same(make: Any, stack: Callable[[Any], Any]) -> None:
    env = stack(make())
    original = play(env, sample(env))
    for twin in (pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        assert play(twin, sample(twin)) == original
        assert twin.unwrapped is not env.unwrapped


@both
def test_a_copy_in_the_middle_of_an_episode_goes_on_by_itself(make: Any) -> None:
    env = over_choices(make())
    use_meters(env)
    env.reset()

    def act(one: Any) -> None:
        one.step(dict.fromkeys(one.agents, 0) if isinstance(one, pettingzoo.ParallelEnv) else 0)

    act(env)
    twin = copy.deepcopy(env)
    before = spent(env)
    act(twin)
    assert (spent(env), spent(twin) > before) == (before, True)


@both
def test_a_meter_given_as_an_object_is_shared_by_copies_and_refuses_to_be_pickled(make: Any) -> None:
    meters = {agent: ComputeMeter(agent) for agent in AGENTS}
    env = of_kind(make()).RecordComputeStatistics(make(), meter=meters)
    twin = copy.deepcopy(env)
    assert all(twin.account.of(agent).meter is meters[agent] for agent in AGENTS)
    with pytest.raises(MeterError, match="about to be pickled"):
        pickle.dumps(env)


@pytest.mark.parametrize("name", parallel.__all__)
@pytest.mark.parametrize(("kind", "other"), [("parallel", turns), ("aec", Team)])
def test_the_other_api_is_refused_with_what_to_use(name: str, kind: str, other: Any) -> None:
    there = {"parallel": "aec", "aec": "parallel"}[kind]
    arguments = {"ComputePenaltyReward": (0.1,), "SubPolicyAction": ([],)}.get(name, ())
    with pytest.raises(ConfigError, match=rf"Use multi_agent\.{there}\.{name}, or convert it first"):
        getattr(KINDS[kind], name)(other(), *arguments)


def test_an_environment_of_gymnasium_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"use budget_wrappers\.RecordComputeStatistics"):
        parallel.RecordComputeStatistics("CartPole-v1")


def test_wrappers_on_both_sides_of_a_conversion_are_refused() -> None:
    """A converted environment steps whole rounds at once: what is read inside is not what is read outside."""
    for convert, inner, outer in ((parallel_to_aec, parallel, aec), (aec_to_parallel, aec, parallel)):
        base: Any = inner.RecordComputeStatistics(Team() if inner is parallel else turns())
        with pytest.raises(WrapperOrderError, match="inside a conversion"):
            outer.ComputePenaltyReward(convert(base), 0.01)


def test_all_wrappers_inside_or_all_outside_of_a_conversion_work() -> None:
    # of 230 the cheapest path of 4 steps (max_cycles, less than horizon=5) keeps 120: three dear ones, 30 more each
    inside, outside = over_choices(Team()), over_choices(parallel_to_aec(Team()))
    for env, stack in ((parallel_to_aec(inside), inside), (outside, outside)):
        play(env, lambda agent, number: 1)
        assert spent(stack) == 3 * STEPS * 10 + 3 * 30


def test_two_wrappers_of_a_stack_share_all_meters_or_none() -> None:
    meters = {agent: ComputeMeter(agent) for agent in AGENTS}
    env = parallel.ComputePenaltyReward(Team(), 0.01, meter=meters)
    with pytest.raises(WrapperOrderError, match=r"share some meters only, \['agent_0'\]"):
        parallel.RecordComputeStatistics(env, meter={**meters, "agent_1": "x", "agent_2": "y"})
    parallel.RecordComputeStatistics(env, meter="tests.elsewhere")


def test_importing_the_package_does_not_import_pettingzoo() -> None:
    program = "import sys, budget_wrappers.wrappers; sys.exit('pettingzoo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_supersuit_is_not_needed() -> None:
    """PettingZoo's wrappers become classes of its own; ours are classes, too."""
    assert all(isinstance(getattr(kind, name), type) for kind in KINDS.values() for name in kind.__all__)
    assert "supersuit" not in sys.modules


class Skip(BaseParallelWrapper):
    """Makes each step twice with the same actions, and hands out the last infos."""

    def step(self, actions: dict[str, Any]) -> Any:
        self.env.step(actions)
        return self.env.step(actions)


def test_a_recorder_inside_a_frame_skip_raises_before_it_loses_a_second_cost() -> None:
    env = Skip(parallel.RecordComputeStatistics(Team(max_cycles=20), meter="skipped"))
    env.reset(seed=0)
    choose = sample(env)
    with pytest.raises(WrapperOrderError, match=r"Skip steps RecordComputeStatistics several .*lost\. Put"):
        for number in range(2):
            get_meter(f"skipped.{AGENTS[0]}").add(7)
            env.step({agent: choose(agent, number) for agent in AGENTS})


@pytest.mark.parametrize("convert", [lambda env: env, parallel_to_aec], ids=["parallel", "aec"])
def test_a_team_that_holds_actions_by_itself_sees_every_cost(convert: Callable[[Any], Any]) -> None:
    recorder = parallel.RecordComputeStatistics(Team(max_cycles=20), meter="held")
    env, costs = convert(recorder), []
    env.reset(seed=0)
    for number in range(6):
        get_meter(f"held.{AGENTS[0]}").add(7 * (number % 2 == 0))
        actions = {agent: np.zeros(1, np.float32) for agent in AGENTS}
        if env is recorder:
            costs.append(float(env.step(actions)[-1][AGENTS[0]]["cost"]))
        else:
            for agent in AGENTS:
                env.step(actions[agent])
            costs.append(float(env.infos[AGENTS[0]]["cost"]))
    assert costs == [7.0, 0.0] * 3
