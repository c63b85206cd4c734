"""EarlyExitAction: the exits of one network as actions, for any discrete agent to choose among."""

import copy
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import DQN, BexaCQL, BexaDiscreteCQL, BexaDQN, BexaSAC, BexaTD3
from agents.loop.agent import OffPolicyAgent
from budget_wrappers.core import Chooser
from budget_wrappers.errors import ConfigError, InfeasibleBudgetError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import ExitPolicy
from budget_wrappers.wrappers import (
    BudgetAwareObservation,
    ComputeLimit,
    ComputePenaltyReward,
    EarlyExitAction,
    PrimitiveTransition,
    RecordComputeStatistics,
    SubPolicyAction,
)
from tests.contracts.wrapper import WrapperContract
from tests.wrappers.environments import HORIZON, SpacesEnv, exits, make

# 3 inputs, 4 units, 3 outputs. Exit 1: head 2·3·3. Exit 2: layer 2·3·4, head 2·4·3. Gates are not asked.
SHALLOW, DEEP = 18, 48


class TestContract(WrapperContract):
    wrapper = EarlyExitAction
    variants: ClassVar = {
        "policy": ({"policy": "exits-box"}, {"policy": "deep-exits-box"}),
        "hold": ({"hold": 1}, {"hold": [1, 3]}),
        "weight": ({"weight": 0.0}, {"weight": 0.5}),
        "meter": ({"meter": "policy"}, {"meter": "tests.another"}),
        "selector_flops": ({"selector_flops": 64}, {"selector_flops": 70}),
        "selector": ({"selector": None}, {"selector": "alternating"}),
    }

    def arguments(self, kind: str) -> dict[str, Any]:
        return {"policy": f"exits-{kind}"}

    def visible(self, env: gym.Env) -> list[Any]:
        """Its charges show in a recorder, and what it declares in the least limit that it can be put under."""
        with pytest.raises(InfeasibleBudgetError) as least:
            ComputeLimit(env, 1, meter=env.meter)
        return [*super().visible(RecordComputeStatistics(env)), str(least.value)]


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def chooser(meter: ComputeMeter, **arguments: Any) -> EarlyExitAction:
    return EarlyExitAction(make(), exits(), meter=meter, **arguments)


def test_actions_are_the_exits_cheapest_first(meter: ComputeMeter) -> None:
    env = chooser(meter, selector_flops=7)
    assert env.action_space == gym.spaces.Discrete(2)
    assert env.sub_policies.names == ("exit 1", "exit 2")
    assert isinstance(env, Chooser)
    assert (env.choice_flops.tolist(), env.selector_flops, env.durations) == ([SHALLOW, DEEP], 7, (1,))


def test_cheapest_is_not_always_shallowest(meter: ComputeMeter) -> None:
    # 20 inputs, 2 units, 10 outputs. Exit 1: 2·20·10 = 400. Exit 2: 2·20·2 + 2·2·10 = 120
    policy = ExitPolicy(EarlyExitNetwork(20, 10, [2]), np.argmax)
    env = EarlyExitAction(gym.Wrapper(SpacesEnv("discrete")), policy, meter=meter)
    assert dict(zip(env.sub_policies.names, env.choice_flops.tolist(), strict=True)) == {"exit 2": 120, "exit 1": 400}


def test_each_action_is_what_its_exit_says(meter: ComputeMeter) -> None:
    env = chooser(meter)
    observation, _ = env.reset(seed=0)
    for choice in (1, 0, 1, 1, 0):
        said = env.policy.network(torch.from_numpy(observation)[None]).output[choice, 0].detach().numpy()
        observation, *_ = env.step(choice)
        np.testing.assert_allclose(env.unwrapped.actions[-1], np.tanh(said), atol=1e-6)


def test_a_step_is_one_decision_and_hold_makes_it_last(meter: ComputeMeter) -> None:
    for hold, durations in ((1, [1.0] * 3), (5, [5.0, 5.0, 2.0])):  # 12 steps
        env = chooser(meter, hold=hold)
        env.reset()
        assert [float(env.step(1)[4]["duration"]) for _ in durations] == durations


def test_the_weight_prices_cost_relative_to_the_cheapest_exit(meter: ComputeMeter) -> None:
    env = chooser(meter, weight=0.3)
    env.reset()
    # rewards 1 and 2; 48/18 = 8/3
    assert [env.step(1)[1], env.step(0)[1]] == pytest.approx([1 - 0.3 * 8 / 3, 2 - 0.3])


def test_the_account_has_the_share_of_each_exit(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(chooser(meter), meter)
    env.reset()
    for choice in (1, 1, 1, *[0] * 9):
        meter.add(5, "gate")
        info = env.step(choice)[4]
    account, total = info["compute"], 3 * DEEP + 9 * SHALLOW + 12 * 5
    assert info["cost"] == SHALLOW + 5
    assert (account["flops"], account["steps"]) == (total, 12)
    assert account["share_steps"] == {"exit 1": 9 / 12, "exit 2": 3 / 12, "hold": 0.0}
    assert account["share_flops"] == pytest.approx(
        {"exit 1": 9 * SHALLOW / total, "exit 2": 3 * DEEP / total, "selector": 60 / total}
    )


def test_wrappers_that_read_costs_go_outside(meter: ComputeMeter) -> None:
    limited = ComputeLimit(chooser(meter), 400, meter=meter)
    env = BudgetAwareObservation(ComputePenaltyReward(limited, 0.01, meter=meter))
    env.reset()
    observation, reward, *_ = env.step(1)
    assert reward == pytest.approx(1 - 0.01 * DEEP)
    assert observation[-1] == np.float32((400 - DEEP) / 400)


def test_subscribers_hear_which_exit_acted(meter: ComputeMeter) -> None:
    heard: list[PrimitiveTransition] = []
    env = chooser(meter)
    env.subscribe(heard.append)
    env.reset()
    for choice in (1, 0):
        env.step(choice)
    assert [transition.index for transition in heard] == [1, 0]


def test_one_exit_is_one_action(meter: ComputeMeter) -> None:
    # 3 inputs, 4 units, 3 outputs, an exit behind the layer only: 2·3·4 + 2·4·3
    policy = ExitPolicy(EarlyExitNetwork(3, 3, [4], [1]), np.tanh)
    env = ComputeLimit(EarlyExitAction(make(), policy, meter=meter), 12 * 48, meter=meter)
    assert env.action_space == gym.spaces.Discrete(1)
    env.reset()
    while not env.step(0)[3]:
        pass
    assert env.remaining == 0


# What it is given.


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (EarlyExitNetwork(3, 3, [4]), r"is no ExitPolicy.*ExitPolicy\(network, act\)"),
        (lambda: BexaTD3(gym.make("Pendulum-v1"), net_arch=(4,)), r"is no ExitPolicy.*Pass its exit_policy\(\)"),
        (["cheap-box", "dear-box"], r"\['cheap-box', 'dear-box'\] is no ExitPolicy.*for SubPolicyAction"),
        ("cheap-box", r"FunctionPolicy\('cheap', flops=10\) is no ExitPolicy"),
        ("nobody", "'nobody' is unknown"),
        (None, "policy=None is no ExitPolicy; expected the exits of one network"),
    ],
    ids=["network", "agent", "sub-policies", "a sub-policy's name", "unknown name", "nothing"],
)
def test_what_is_no_exit_policy_is_refused(meter: ComputeMeter, policy: Any, message: str) -> None:
    given = policy() if callable(policy) and not isinstance(policy, torch.nn.Module) else policy
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        EarlyExitAction(make(), given, meter=meter)


def test_objects_are_not_copied_and_names_stay_names(meter: ComputeMeter) -> None:
    policy = exits()
    outer = RecordComputeStatistics(EarlyExitAction(make(), policy, meter=meter), meter)
    assert outer.spec.make().get_wrapper_attr("policy") is policy
    assert copy.deepcopy(outer).get_wrapper_attr("policy") is policy
    named = EarlyExitAction(make(), "exits-box", hold=[3, 1])
    assert named.spec.additional_wrappers[-1].kwargs == {
        "policy": "exits-box",
        "hold": [1, 3],
        "weight": 0.0,
        "meter": "policy",
        "selector_flops": None,
        "selector": None,
    }


# Under a hard limit. All 12 steps at exit 1 cost 216 FLOPs, at exit 2 576.


def test_the_cheapest_exit_is_kept_affordable(meter: ComputeMeter) -> None:
    # 305 = 216 + 2 · (48 − 18) + 29: exit 2 runs twice and a third time would leave 29 too little
    env = RecordComputeStatistics(ComputeLimit(chooser(meter), 305, meter=meter), meter)
    env.reset()
    options = []
    while len(options) < HORIZON:
        *_, info = env.step(1)
        options.append(float(info["option"]))
    assert options == [1.0] * 2 + [0.0] * 10
    assert info["compute"]["flops"] == 2 * DEEP + 10 * SHALLOW == 276


def test_no_choice_passes_a_hard_limit(meter: ComputeMeter) -> None:
    rng = np.random.default_rng(0)
    env_of = {hold: chooser(meter, hold=list(hold)) for hold in ((1,), (2,), (5,), (1, 3))}
    for episode in range(150):
        hold = list(env_of)[episode % 4]
        inner, selector = env_of[hold], int(rng.integers(0, 30))
        inner.set_selector_flops(selector)
        cheapest_path = HORIZON * SHALLOW + -(-HORIZON // hold[0]) * selector
        first_decision = selector + hold[0] * SHALLOW
        limit = int(rng.integers(first_decision, HORIZON * (DEEP + selector) + 1))
        env = RecordComputeStatistics(ComputeLimit(inner, limit, meter=meter), meter)
        env.reset()
        ended = False
        while not ended:
            meter.add(int(rng.integers(0, selector + 1)), "gate")
            _, _, terminated, truncated, info = env.step(rng.integers(env.action_space.n))
            ended = terminated or truncated
        account = info["compute"]
        assert account["flops"] <= limit
        assert (account["overshoot"], account["steps"]) == (0, HORIZON)
        assert account["held_steps"] == 0 or limit < cheapest_path


# Agents: those whose exits act, and those that choose.


def pendulum() -> gym.Env:
    return gym.make("Pendulum-v1")


def five_to_seven() -> gym.Env:
    env = SpacesEnv()
    env.action_space = gym.spaces.Discrete(3, start=5)
    return env


def expected_action(agent: OffPolicyAgent, observation: np.ndarray, exit_index: int) -> Any:
    x = torch.as_tensor(observation, dtype=torch.float32)[None]
    said = agent.actor(x).output[exit_index, 0].detach().numpy()
    if agent.discrete:
        return said.argmax() + 5
    return 2.0 * np.tanh(said[:1])  # Pendulum's torque is in [−2, 2]; SAC's second number is a standard deviation


@pytest.mark.parametrize("agent_class", [BexaSAC, BexaTD3, BexaCQL, BexaDQN, BexaDiscreteCQL])
def test_an_agents_exits_act_deterministically_on_observations_as_they_come(agent_class: Any) -> None:
    env = five_to_seven() if agent_class.discrete else pendulum()
    agent = agent_class(env, net_arch=(8, 8), seed=1)
    spent = agent.meter.totals
    rng = np.random.default_rng(0)
    for exit_index, one in enumerate(agent.exit_policy().exits):
        observations = rng.uniform(-1, 1, (20, 3))  # float64
        actions = [one(observation) for observation in observations]
        expected = [expected_action(agent, observation, exit_index) for observation in observations]
        np.testing.assert_allclose(actions, expected, atol=1e-5)
        assert all(env.action_space.contains(action) for action in actions)
    assert (agent.meter.totals, agent.exits.counts.sum()) == (spent, 0)  # nothing is charged to the agent


def test_an_agents_exits_read_dictionaries() -> None:
    parts = gym.spaces.Dict({"angle": gym.spaces.Box(-1.0, 1.0, (2,)), "speed": gym.spaces.Box(-8.0, 8.0, (1,))})
    split = gym.wrappers.TransformObservation(pendulum(), lambda x: {"angle": x[:2], "speed": x[2:]}, parts)
    agent = BexaTD3(split, net_arch=(8,))
    observation = split.reset(seed=0)[0]
    row = np.concatenate([observation["angle"], observation["speed"]])
    for exit_index, one in enumerate(agent.exit_policy().exits):
        np.testing.assert_allclose(one(observation), expected_action(agent, row, exit_index), atol=1e-5)


@pytest.fixture(scope="module")
def trained() -> tuple[BexaTD3, ExitPolicy]:
    """Return an agent and its exits, which were made before it learned."""
    agent = BexaTD3(pendulum(), net_arch=(8, 8), learning_starts=100, batch_size=32, seed=0)
    policy = agent.exit_policy()
    agent.learn(250)
    return agent, policy


# 3 inputs, 8 and 8 units, 1 output: 2·3·1, 2·3·8 + 2·8·1, 2·3·8 + 2·8·8 + 2·8·1. The gate: 3 inputs, 8 units, 3 actions
TORQUE, GATE = (6, 64, 192), 2 * 3 * 8 + 2 * 8 * 3


def test_exits_follow_what_their_agent_learns(trained: tuple[BexaTD3, ExitPolicy]) -> None:
    agent, policy = trained
    assert tuple(one.flops for one in policy.exits) == TORQUE
    observation = np.array([0.6, 0.8, -1.5])
    for exit_index, one in enumerate(policy.exits):
        np.testing.assert_allclose(one(observation), expected_action(agent, observation, exit_index), atol=1e-5)


def gate_on(env: gym.Env, **settings: Any) -> DQN:
    return DQN(env, **{"net_arch": (8,), "learning_starts": 50, "seed": 0, **settings})


def play(gate: DQN, env: gym.Env) -> dict[str, Any]:
    """Return the last info of one episode."""
    observation, _ = env.reset(seed=0)
    ended = False
    while not ended:
        observation, _, terminated, truncated, info = env.step(gate.predict(observation)[0])
        ended = terminated or truncated
    return info


def test_a_dqn_is_the_gate_and_pays_for_itself(meter: ComputeMeter, trained: tuple[BexaTD3, ExitPolicy]) -> None:
    env = RecordComputeStatistics(EarlyExitAction(pendulum(), trained[1], meter=meter), meter)
    gate = gate_on(env)
    gate.learn(300)
    assert gate.meter is meter
    account = play(gate, env)["compute"]
    steps = {name: round(200 * share) for name, share in account["share_steps"].items()}
    ran = sum(flops * steps[f"exit {number + 1}"] for number, flops in enumerate(TORQUE))
    assert (sum(steps.values()), steps["hold"]) == (200, 0)
    assert account["flops"] == ran + 200 * GATE
    assert account["share_flops"]["selector"] == pytest.approx(200 * GATE / account["flops"])


def test_a_gate_learns_to_leave_alone_what_is_not_worth_its_price(trained: tuple[BexaTD3, ExitPolicy]) -> None:
    # exits cost 1, 10.7 and 32, a step's reward is −16.3 at worst
    env = EarlyExitAction(pendulum(), trained[1], weight=3.0)
    gate = gate_on(env, gamma=0.0, learning_rate=1e-2, train_freq=1, exploration_fraction=1.0)
    gate.learn(300)
    observations = np.stack([env.observation_space.sample() for _ in range(50)]) / np.array([1, 1, 8])
    assert (gate.predict(observations.astype(np.float32))[0] == 0).mean() > 0.9


def test_a_hard_limit_holds_for_a_gate_that_learns(meter: ComputeMeter, trained: tuple[BexaTD3, ExitPolicy]) -> None:
    inner = EarlyExitAction(pendulum(), trained[1], meter=meter, selector_flops=GATE)
    limit = 200 * (GATE + TORQUE[0]) + 3 * (TORQUE[2] - TORQUE[0])
    env = RecordComputeStatistics(ComputeLimit(inner, limit, meter=meter), meter)
    spent: list[dict[str, Any]] = []
    gate = gate_on(env)
    gate.learn(300, callback=lambda agent: spent.append(env.compute_summary()))
    account = play(gate, env)["compute"]
    for one in (account, *spent):
        assert one["flops"] <= limit
        assert (one["held_steps"], one["overshoot"]) == (0, 0)


def test_a_gate_of_stable_baselines3(meter: ComputeMeter, trained: tuple[BexaTD3, ExitPolicy]) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from budget_wrappers.integrations.sb3 import flops_per_action, metered

    env = RecordComputeStatistics(EarlyExitAction(pendulum(), trained[1], meter=meter), meter)
    small = {"policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu"}
    ppo = metered(sb3.PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, **small), meter)
    ppo.learn(64)
    by_name = meter.totals.by_name
    assert (
        sum(
            by_name[name] // flops
            for name, flops in zip(env.get_wrapper_attr("sub_policies").names, TORQUE, strict=True)
        )
        == 64
    )
    assert sum(by_name.values()) - sum(by_name[f"exit {k}"] for k in (1, 2, 3)) >= 64 * flops_per_action(ppo)


def test_it_is_a_sub_policy_action_for_whoever_looks_for_one(meter: ComputeMeter) -> None:
    assert isinstance(chooser(meter), SubPolicyAction)
