"""A sub-policy's memory begins with the episode, of each environment apart, and holds the steps that it acted in."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import AgentPolicy, FunctionPolicy
from budget_wrappers.wrappers import SubPolicyAction, vector
from budget_wrappers.wrappers.multi_agent import aec, parallel
from tests.gymnasium_versions import needs_masks, sync
from tests.policies.memories import Counting, Kept, cartpole, handed_back, in_function, in_module, rule
from tests.wrappers.multi_agent.environments import AGENTS, Team, of_kind, play, turns
from tests.wrappers.vector.episodes import MODES

kinds = pytest.mark.parametrize("make", [handed_back, in_function, in_module])


def options(env: gym.Env, policy: Any, hold: int = 1) -> SubPolicyAction:
    return SubPolicyAction(env, [rule(1), policy], hold=hold, meter=ComputeMeter())


def run(env: gym.Env, choices: list[int]) -> None:
    """Step, and reset where an episode ends."""
    env.reset(seed=0)
    for choice in choices:
        if any(env.step(choice)[2:4]):
            env.reset()


@kinds
def test_a_memory_begins_anew_with_each_episode(make: Callable[[], Any]) -> None:
    spy = cartpole(3)
    run(options(spy, make()), [1] * 8)
    assert spy.taken == [[0, 1, 0], [0, 1, 0], [0, 1]]


@kinds
def test_a_reset_amid_an_episode_begins_the_memory_anew(make: Callable[[], Any]) -> None:
    spy = cartpole()
    env = options(spy, make())
    for _ in range(2):
        env.reset(seed=0)
        env.step(1)
    assert spy.taken == [[0], [0]]


@kinds
def test_a_step_at_which_another_acts_is_not_remembered(make: Callable[[], Any]) -> None:
    spy = cartpole(5)
    run(options(spy, make()), [1, 0, 0, 1])  # the rule acts 1
    assert spy.taken == [[0, 1, 1, 1]]


def test_each_primitive_step_of_a_longer_option_is_remembered() -> None:
    spy = cartpole(5)
    run(options(spy, handed_back(), hold=4), [1])
    assert spy.taken == [[0, 1, 0, 1]]


@kinds
def test_an_episode_that_autoreset_begins_within_a_step_begins_the_memory(make: Callable[[], Any]) -> None:
    spy = cartpole(3)
    env = options(gym.wrappers.Autoreset(spy), make())
    env.reset(seed=0)
    for _ in range(7):  # the fourth only resets
        env.step(1)
    assert spy.taken == [[0, 1, 0], [0, 1, 0]]


def test_environments_that_share_an_agent_do_not_share_its_memory() -> None:
    policy, first, second = handed_back(), cartpole(9), cartpole(9)
    envs = [options(first, policy), options(second, policy)]
    for env in envs:
        env.reset(seed=0)
    for turn in (0, 1, 1, 0, 1):
        envs[turn].step(1)
    assert (first.taken, second.taken) == ([[0, 1]], [[0, 1, 0]])


def test_an_object_that_keeps_its_memory_serves_one_environment_at_a_time() -> None:
    policy = in_function()
    one, other = options(cartpole(), policy), options(cartpole(), policy)
    one.reset(seed=0)
    other.reset(seed=0)
    other.step(1)
    with pytest.raises(ConfigError, match=r"'memory' keeps its memory in itself.*another environment has reset it"):
        one.step(1)
    one.reset(seed=0)
    one.step(1)


def test_a_call_that_raises_leaves_what_is_handed_back_as_it_was() -> None:
    class Failing(Counting):
        fails = False

        def predict(self, observation: Any, state: Any = None, deterministic: bool = True) -> Any:
            if self.fails:
                raise ZeroDivisionError
            return super().predict(observation, state)

    agent, spy = Failing(), cartpole(9)
    env = options(spy, AgentPolicy(agent, 5, "memory"))
    env.reset(seed=0)
    env.step(1)
    agent.fails = True
    with pytest.raises(ZeroDivisionError):
        env.step(1)
    agent.fails = False
    env.step(1)
    env.step(1)
    assert spy.taken == [[0, 1, 0]]


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_a_copy_remembers_as_much_and_goes_on_alone(twin: Callable[[Any], Any]) -> None:
    env = SubPolicyAction(cartpole(9), [AgentPolicy(Counting(), 5, "memory")], hold=1, meter="tests.memory.copies")
    env.reset(seed=0)
    env.step(0)
    other = twin(env)
    other.step(0)
    other.step(0)
    env.step(0)
    assert (env.env.taken, other.env.taken) == ([[0, 1]], [[0, 1, 0]])


def test_direct_calls_remember_until_reset() -> None:
    policy = handed_back()
    acted = [int(policy(np.zeros(4))) for _ in range(3)]
    assert acted == [0, 1, 0]


# ---- vectors --------------------------------------------------------------------------------------------------------


def actions_of(envs: Any, choices: list[list[int]], mode: str, limited: Any = None) -> list[list[int]]:
    """Return what each row's environment was told, by a subscriber."""
    taken: list[list[int]] = [[] for _ in range(envs.num_envs)]
    envs.subscribe(lambda step: taken[step.row].append(int(step.action)))
    outer = envs if limited is None else limited
    outer.reset(seed=0)
    for choice in choices:
        over = np.logical_or(*outer.step(np.array(choice))[2:4])
        if mode == "Disabled" and over.any():
            outer.reset(options={"reset_mask": over})
    return taken


@needs_masks
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_each_row_has_a_memory_of_its_own_that_begins_with_its_episodes(mode: Any, batched: bool) -> None:
    envs = sync([lambda: gym.make("CartPole-v1", max_episode_steps=3), lambda: gym.make("CartPole-v1")], mode)
    envs = vector.SubPolicyAction(envs, [rule(1), handed_back(batched)], meter=ComputeMeter())
    taken = actions_of(envs, [[1, 1], [1, 0], [1, 1], [1, 1], [1, 1]], mode)
    assert taken[0] == ([0, 1, 0, 0] if mode == "NextStep" else [0, 1, 0, 0, 1])  # there a step only resets the row
    assert taken[1] == [0, 1, 1, 0, 1]


@needs_masks
@pytest.mark.parametrize("mode", MODES)
def test_an_episode_that_a_limit_has_ended_is_followed_by_a_new_memory(mode: Any) -> None:
    meter = ComputeMeter()
    envs = sync([lambda: gym.make("CartPole-v1")] * 2, mode)
    envs = vector.SubPolicyAction(envs, [rule(1), handed_back()], meter=meter)
    limited = vector.ComputeLimit(envs, 10, meter=meter)  # two calls of 5 FLOPs
    taken = actions_of(envs, [[1, 0]] * 5, mode, limited)
    assert taken[0] == ([0, 1, 0, 1] if mode == "NextStep" else [0, 1, 0, 1, 0])


def test_rows_cannot_share_an_object_that_keeps_its_memory() -> None:
    for policy in (in_function(), in_module()):
        envs = sync([lambda: gym.make("CartPole-v1")] * 2, MODES[0])
        with pytest.raises(
            ConfigError, match=r"'memory' keeps its memory in itself, and 2 environments would share it"
        ):
            vector.SubPolicyAction(envs, [rule(1), policy], meter=ComputeMeter())


# ---- teams ----------------------------------------------------------------------------------------------------------


class Counts:
    """Counts its calls in an episode, as an action of the team's environment."""

    def predict(self, observation: Any, state: Any = None, deterministic: bool = True) -> Any:
        steps = 0 if state is None else state + 1
        return np.array([steps / 10], np.float32), steps


@pytest.mark.parametrize("make", [Team, turns], ids=["parallel", "aec"])
def test_agents_that_share_a_policy_have_a_memory_each_which_begins_with_the_episode(make: Any) -> None:
    env = make()
    env = of_kind(env).SubPolicyAction(env, [AgentPolicy(Counts(), 5, "memory")])
    for _ in range(2):
        env.unwrapped.taken.clear()
        play(env, lambda agent, number: 0)
        steps = env.unwrapped.taken
        assert [{agent: round(float(np.ravel(x)[0]) * 10) for agent, x in step.items()} for step in steps] == [
            dict.fromkeys(AGENTS, number) for number in range(len(steps))
        ]


@pytest.mark.parametrize("kind", [parallel, aec])
def test_agents_cannot_share_an_object_that_keeps_its_memory(kind: Any) -> None:
    env = Team() if kind is parallel else turns()
    with pytest.raises(ConfigError, match=r"'memory' keeps its memory in itself, and 'agent_0' and 'agent_1'"):
        kind.SubPolicyAction(env, [FunctionPolicy(Kept(), 5, "memory")])
