"""step(None): a selector inside the wrapper chooses, and pays for itself."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import Autoreset

from budget_wrappers.core import Choice
from budget_wrappers.errors import ConfigError, CostError, SpaceError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.selection import coin, fixed, greedy_by_cost, random, shuffled
from budget_wrappers.wrappers import EarlyExitAction, RecordComputeStatistics, SubPolicyAction
from tests.wrappers.environments import CHEAP, DEAR, HORIZON, Alternating, SpacesEnv, cheap, dear, exits, make


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(meter: ComputeMeter, selector: Any, env: gym.Env | None = None, **arguments: Any) -> SubPolicyAction:
    policies = [cheap("box"), dear("box")]
    return SubPolicyAction(env or make(), policies, **{"hold": 1, "meter": meter, "selector": selector, **arguments})


class Scripted:
    """Picks by a list, at costs by a list; declares the most."""

    def __init__(self, script: list[Choice], flops: int = 0) -> None:
        self.script, self.flops, self.seen = script, flops, []

    def __call__(self, observation: Any) -> Choice:
        self.seen.append(observation)
        return self.script[(len(self.seen) - 1) % len(self.script)]


def ended(transition: tuple[Any, ...]) -> bool:
    return transition[2] or transition[3]


# ---- what step(None) does -------------------------------------------------------------------------------------------


def test_step_none_runs_what_the_selector_picks_for_the_observation(meter: ComputeMeter) -> None:
    selector = Scripted([Choice(1), Choice(0), Choice(1)])
    env = options(meter, selector)
    observations = [env.reset(seed=0)[0]]
    ran = []
    for _ in range(3):
        observation, _, _, _, info = env.step(None)
        observations.append(observation)
        ran.append(info["option"])
    assert ran == [1.0, 0.0, 1.0]
    assert all(one is other for one, other in zip(selector.seen, observations, strict=False))


def test_the_selector_sees_what_the_sub_policies_see(meter: ComputeMeter) -> None:
    seen: list[Any] = []
    policy = FunctionPolicy(lambda obs: seen.append(obs) or np.zeros(3, np.float32), 1, "p")
    selector = Scripted([Choice(0)])
    env = SubPolicyAction(make(), [policy], hold=1, meter=meter, selector=selector)
    env = gym.wrappers.TransformObservation(env, lambda obs: -obs, env.observation_space)
    env.reset(seed=0)
    for _ in range(2):
        env.step(None)
    assert all(one is other for one, other in zip(selector.seen, seen, strict=True))


def test_an_action_overrides_the_selector(meter: ComputeMeter) -> None:
    selector = Scripted([Choice(0, 7)], flops=7)
    env = options(meter, selector)
    env.reset(seed=0)
    assert env.step(1)[4]["option"] == 1.0
    assert (selector.seen, meter.take().executed) == ([], DEAR)


def test_a_choice_is_charged_to_the_name_selector(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(options(meter, Alternating()), meter)
    env.reset(seed=0)
    transitions = [env.step(None) for _ in range(HORIZON)]
    costs = [transition[4]["cost"] for transition in transitions]
    assert costs == [DEAR + 70, CHEAP + 70] * 6  # 12 steps
    total = 6 * (DEAR + CHEAP) + 12 * 70
    account = transitions[-1][4]["compute"]
    assert account["flops"] == total
    assert account["share_flops"] == pytest.approx(
        {"cheap": 6 * CHEAP / total, "dear": 6 * DEAR / total, "selector": 12 * 70 / total}
    )
    assert meter.by_name["selector"] == 12 * 70


def test_a_selector_that_is_free_adds_no_name_to_the_meter(meter: ComputeMeter) -> None:
    env = options(meter, fixed(1))
    env.reset(seed=0)
    env.step(None)
    assert dict(meter.by_name) == {"dear": DEAR}


def test_a_network_inside_the_selector_is_not_charged_twice(meter: ComputeMeter) -> None:
    net = torch.nn.Linear(3, 2)
    meter.watch(net, "net")

    def selector(observation: Any) -> Choice:
        with torch.no_grad():
            values = net(torch.from_numpy(observation)[None])
        return Choice(int(values.argmax()) * 0, 12)  # 2·3·2

    env = options(meter, selector, selector_flops=12)
    env.reset(seed=0)
    env.step(None)
    assert meter.take().executed == CHEAP + 12


@pytest.mark.parametrize(
    "make_selector",
    [
        lambda rng: fixed(1),
        lambda rng: random(2, rng),
        lambda rng: greedy_by_cost([CHEAP, DEAR], 20),
        lambda rng: coin([0.5, 0.5], rng),
        lambda rng: shuffled([Choice(0), Choice(1, 5)], rng),
    ],
    ids=["fixed", "random", "greedy_by_cost", "coin", "shuffled"],
)
def test_every_selector_of_the_package_drives_an_episode(meter: ComputeMeter, make_selector: Callable) -> None:
    env = options(meter, make_selector(np.random.default_rng(0)))
    env.reset(seed=0)
    steps = 1
    while not ended(env.step(None)):
        steps += 1
    assert steps == HORIZON


def test_exits_take_a_selector_too(meter: ComputeMeter) -> None:
    env = EarlyExitAction(make(), exits(), meter=meter, selector=fixed(1))
    env.reset(seed=0)
    assert env.step(None)[4]["option"] == 1.0


# ---- durations ------------------------------------------------------------------------------------------------------


def test_a_choice_lasts_for_its_duration(meter: ComputeMeter) -> None:
    selector = Scripted([Choice(1, 0, 3), Choice(0, 0, 1), Choice(1, 0, 1)])
    env = options(meter, selector, hold=(1, 3))
    env.reset(seed=0)
    ran = [(info["option"], info["duration"]) for info in (env.step(None)[4] for _ in range(3))]
    assert ran == [(1.0, 3.0), (0.0, 1.0), (1.0, 1.0)]


def test_a_duration_that_the_wrapper_does_not_offer_is_refused(meter: ComputeMeter) -> None:
    # A choice that holds longer than the selector has said would not be its choice.
    env = options(meter, fixed(0), hold=5)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"duration=1, and the wrapper's choices last hold=5; .*with duration=5, or"):
        env.step(None)
    env = options(meter, fixed(0, duration=2), hold=(1, 3))
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"duration=2, and the wrapper's choices last hold=1 or 3"):
        env.step(None)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_step_none_without_a_selector_is_refused(meter: ComputeMeter) -> None:
    env = options(meter, None)
    env.reset(seed=0)
    with pytest.raises(SpaceError, match=r"step\(None\) asks a selector, and this wrapper has none.*Pass selector="):
        env.step(None)
    assert meter.take().executed == 0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (0, r"returned 0; expected a budget_wrappers\.Choice"),
        (None, r"returned None; expected a budget_wrappers\.Choice"),
        (Choice(2), r"the sub-policy 2; expected an index in 0 … 1: cheap, dear"),
        (Choice(-1), r"the sub-policy -1; expected an index"),
        (Choice(0.0), r"the sub-policy 0\.0; expected an index"),
        (Choice(True), r"the sub-policy True; expected an index"),
    ],
)
def test_what_is_no_choice_is_refused(meter: ComputeMeter, returned: Any, message: str) -> None:
    env = options(meter, lambda observation: returned)
    env.reset(seed=0)
    with pytest.raises(SpaceError, match=message):
        env.step(None)


@pytest.mark.parametrize("wrong", [3, [fixed(0)], Choice(0), Alternating, ComputeMeter("other")])
def test_what_is_no_selector_is_refused(meter: ComputeMeter, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"(?s)selector=.* is no selector; expected a function from an observation"):
        options(meter, wrong)


def test_an_unknown_name_is_refused(meter: ComputeMeter) -> None:
    with pytest.raises(ConfigError, match="'nobody' is unknown"):
        options(meter, "nobody")


# ---- what a choice costs at most ------------------------------------------------------------------------------------


def test_the_selector_declares_what_a_choice_costs(meter: ComputeMeter) -> None:
    assert options(meter, Alternating()).selector_flops == 70
    assert options(meter, Alternating(), selector_flops=100).selector_flops == 100
    assert options(meter, lambda observation: Choice(0), selector_flops=9).selector_flops == 9
    assert options(meter, lambda observation: Choice(0)).selector_flops == 0
    assert options(meter, None).selector_flops == 0
    assert options(meter, fixed(1)).selector_flops == 0


def test_less_than_the_selector_declares_is_refused(meter: ComputeMeter) -> None:
    message = r"selector_flops=69 is below the 70 that selector="
    with pytest.raises(CostError, match=message):
        options(meter, Alternating(), selector_flops=69)
    with pytest.raises(CostError, match=message):
        options(meter, Alternating()).set_selector_flops(69)


def test_a_choice_that_costs_more_than_declared_is_charged_and_raises(meter: ComputeMeter) -> None:
    selector = Scripted([Choice(1, 9), Choice(1, 8)], flops=8)
    env = options(meter, selector)
    env.reset(seed=0)
    with pytest.raises(CostError, match="ran 9 FLOPs for one choice and 8 are declared"):
        env.step(None)
    assert (meter.take().executed, env.unwrapped.steps) == (9, 0)
    assert env.step(None)[4]["option"] == 1.0  # the next step goes on
    assert meter.take().executed == DEAR + 8


@pytest.mark.parametrize("flops", [-1, 1.5, float("nan"), "1"])
def test_a_choice_s_flops_are_a_whole_number(meter: ComputeMeter, flops: Any) -> None:
    env = options(meter, lambda observation: Choice(0, flops), selector_flops=5)
    env.reset(seed=0)
    with pytest.raises(CostError, match="flops of the choice of selector"):
        env.step(None)
    assert meter.take().executed == 5  # what it says is nothing to charge by: the most


def test_a_selector_that_fails_has_run(meter: ComputeMeter) -> None:
    def fails(observation: Any) -> Choice:
        raise RuntimeError("lost contact")

    env = options(meter, fails, selector_flops=6)
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="lost contact"):
        env.step(None)
    assert meter.take().executed == 6
    meter.add(5)  # and the meter is not left paused
    assert meter.take().executed == 5


def test_one_account_has_one_convention(meter: ComputeMeter) -> None:
    selector = Alternating()
    selector.convention = "all"
    with pytest.raises(ConfigError, match="FLOPs of the convention 'all', and meter 'tests' counts 'matmul'"):
        options(meter, selector)
    everything = ComputeMeter("all", "all")
    with pytest.raises(ConfigError, match="FLOPs of the convention 'matmul', and meter 'all' counts 'all'"):
        SubPolicyAction(
            make(), [FunctionPolicy(np.tanh, 1, "p", convention="all")], 1, 0.0, everything, None, Alternating()
        )
    free = SubPolicyAction(
        make(), [FunctionPolicy(np.tanh, 1, "p", convention="all")], 1, 0.0, everything, None, fixed(0)
    )
    assert free.selector_flops == 0  # in any convention


# ---- episodes -------------------------------------------------------------------------------------------------------


class Remembering:
    """A selector with a memory: which choice of the episode it is."""

    def __init__(self) -> None:
        self.resets, self.count = 0, 0
        self.counts: list[int] = []

    def reset(self) -> None:
        self.resets += 1
        self.count = 0

    def __call__(self, observation: Any) -> Choice:
        self.counts.append(self.count)
        self.count += 1
        return Choice(0)


def test_a_selector_with_a_memory_is_told_once_of_each_episode(meter: ComputeMeter) -> None:
    selector = Remembering()
    env = options(meter, selector, SpacesEnv(end_at=3))
    assert selector.resets == 0  # no episode has begun
    for episode in range(1, 4):
        env.reset()
        while not ended(env.step(None)):
            pass
        assert selector.resets == episode
    assert selector.counts == [0, 1, 2] * 3


def test_it_is_told_of_episodes_that_begin_inside(meter: ComputeMeter) -> None:
    selector = Remembering()
    env = options(meter, selector, Autoreset(SpacesEnv(end_at=2)))
    env.reset()
    for _ in range(6):
        env.step(None)
    assert selector.counts[:2] == [0, 1]
    assert selector.counts.count(0) == selector.resets >= 2


def test_a_reset_that_takes_arguments_is_refused(meter: ComputeMeter) -> None:
    class Demanding(Remembering):
        def reset(self, env: Any) -> None:
            raise AssertionError

    with pytest.raises(ConfigError, match=r"reset of selector=.* takes arguments; expected a function without any"):
        options(meter, Demanding())


# ---- specs and copies -----------------------------------------------------------------------------------------------


def test_a_name_serialises_and_an_object_does_not() -> None:
    named = SubPolicyAction(make(), ["cheap-box", "dear-box"], hold=1, selector="alternating")
    spec = gym.envs.registration.EnvSpec.from_json(named.spec.to_json())
    remade = gym.make(spec)
    remade.reset(seed=0)
    assert [remade.step(None)[4]["option"] for _ in range(3)] == [1.0, 0.0, 1.0]
    given = Alternating()
    held = SubPolicyAction(make(), ["cheap-box", "dear-box"], hold=1, selector=given)
    assert held.spec.make().get_wrapper_attr("selector") is given
    with pytest.raises((TypeError, ValueError)):  # as with sub-policies that are objects
        json.loads(held.spec.to_json())


def test_a_copy_asks_the_very_same_selector_and_a_pickle_another(meter: ComputeMeter) -> None:
    env = SubPolicyAction(make(), ["cheap-box", "dear-box"], hold=1, selector=Alternating())
    env.reset(seed=0)
    assert copy.deepcopy(env).selector is env.selector
    other = pickle.loads(pickle.dumps(env))
    assert other.step(None)[4]["option"] == env.step(None)[4]["option"] == 1.0
