"""Where an agent meets its environment: spaces, meters, and what environments must hand out."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import SAC, TD3
from budget_wrappers import ComputeMeter, ComputePenaltyReward, RecordComputeStatistics
from budget_wrappers.errors import ConfigError, MeterError, NonFiniteError, SpaceError
from tests.agents.small import SETTINGS, make_agent, make_env

FLOPS = 2 * (3 * 8 + 8 * 8 + 8 * 2)


def recorded(meter: ComputeMeter) -> gym.Env:
    return RecordComputeStatistics(make_env("Pendulum-v1"), meter)


# ---- meters ---------------------------------------------------------------------------------------------------------


def test_agent_made_again_in_one_session_is_charged_as_the_first_was(tmp_path) -> None:
    meter = ComputeMeter()
    env = recorded(meter)
    first = SAC(env, **SETTINGS)
    first.save(tmp_path / "first")
    agents = [first, SAC(env, **SETTINGS), SAC.load(tmp_path / "first", env)]
    before = meter.totals["act"]
    for agent in agents:
        agent.predict(np.zeros(3, np.float32))
    assert meter.totals["act"] - before == 3 * FLOPS


def test_environment_that_reads_another_meter_is_refused() -> None:
    agent = make_agent("sac")
    with pytest.raises(MeterError, match=r"every cost would be 0.*meter=agent\.meter"):
        agent.set_env(recorded(ComputeMeter("other")))
    agent.set_env(recorded(agent.meter))
    agent.learn(60)
    assert agent.num_timesteps == 60


def test_environment_of_other_spaces_is_refused() -> None:
    with pytest.raises(SpaceError, match="for which the agent was made"):
        make_agent("sac").set_env(gym.make("MountainCarContinuous-v0"))


# ---- spaces ---------------------------------------------------------------------------------------------------------


class WithAction(gym.Wrapper):
    def __init__(self, space: gym.Space) -> None:
        super().__init__(gym.make("Pendulum-v1"))
        self.action_space = space


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2, 2)),
        spaces.Box(-1, 1, ()),
        spaces.Box(np.array([0.0, 1.0], np.float32), np.array([1.0, 1.0], np.float32)),
        spaces.Box(-np.inf, 1, (1,)),
    ],
    ids=["matrix", "scalar", "empty range", "no bound"],
)
def test_actions_that_cannot_be_scaled_are_refused(space: gym.Space) -> None:
    with pytest.raises(SpaceError, match="finite low < high"):
        TD3(WithAction(space))


def test_remedy_for_unbounded_actions_works() -> None:
    unbounded = WithAction(spaces.Box(-np.inf, np.inf, (1,)))
    env = gym.wrappers.TransformAction(unbounded, lambda action: action, spaces.Box(-1.0, 1.0, (1,)))
    assert SAC(env, **SETTINGS).learn(10).num_timesteps == 10


# ---- what environments hand out ------------------------------------------------------------------------------------


class HandsOut(gym.Wrapper):
    """Replaces observation or reward from the fourth step on."""

    def __init__(self, observation: Any = None, reward: Any = 1.0) -> None:
        super().__init__(make_env("Pendulum-v1"))
        self.observation, self.reward, self.steps = observation, reward, 0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, *rest = self.env.step(action)
        self.steps += 1
        if self.steps < 4:
            return observation, reward, *rest
        return observation if self.observation is None else self.observation, self.reward, *rest


@pytest.mark.parametrize("shape", [(1,), (4,), (1, 3), ()])
def test_observation_of_another_shape_is_refused_and_not_stored(shape: tuple[int, ...]) -> None:
    agent = SAC(HandsOut(np.zeros(shape, np.float32)), **SETTINGS)
    with pytest.raises(SpaceError, match="has the shape"):
        agent.learn(10)
    assert len(agent.replay) == 3


@pytest.mark.parametrize("reward", [None, "one", [1.0, 2.0], np.zeros(2)])
def test_reward_that_is_no_number_is_refused_and_not_stored(reward: Any) -> None:
    agent = SAC(HandsOut(reward=reward), **SETTINGS)
    with pytest.raises(SpaceError, match="expected one number"):
        agent.learn(10)
    assert len(agent.replay) == 3


def test_reward_that_is_not_finite_is_refused() -> None:
    with pytest.raises(NonFiniteError):
        SAC(HandsOut(reward=float("nan")), **SETTINGS).learn(10)


# ---- hindsight ------------------------------------------------------------------------------------------------------


class Reach(gym.Env):
    observation_space = spaces.Dict(
        {key: spaces.Box(-1, 1, (1,)) for key in ("observation", "achieved_goal", "desired_goal")}
    )
    action_space = spaces.Box(-1, 1, (1,))

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        return -np.abs(achieved - desired).sum(-1)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: ComputePenaltyReward(env, weight=0.1),
        lambda env: gym.wrappers.TransformReward(env, lambda reward: 10 * reward),
        gym.wrappers.NormalizeReward,
    ],
    ids=["penalty", "transform", "normalize"],
)
def test_hindsight_refuses_rewards_that_it_cannot_recompute(wrap: Any) -> None:
    with pytest.raises(ConfigError, match="compute_reward, which knows nothing of"):
        SAC(wrap(Reach()), **SETTINGS, hindsight=4)


def test_hindsight_takes_wrappers_that_leave_rewards_alone() -> None:
    SAC(RecordComputeStatistics(ComputePenaltyReward(Reach(), weight=0.0)), **SETTINGS, hindsight=4)


# ---- copies ---------------------------------------------------------------------------------------------------------


def constant(agent: Any, value: float) -> None:
    vector = torch.nn.utils.parameters_to_vector(agent.policy.parameters())
    torch.nn.utils.vector_to_parameters(torch.full_like(vector, value), agent.policy.parameters())


def own_answer(agent: Any) -> np.ndarray:
    with torch.no_grad():
        return agent.to_env_action(torch.tanh(agent.policy(torch.ones(1, 3))[0][0]).numpy())[0]


def test_agent_acts_on_weights_that_were_replaced() -> None:
    agent = make_agent("sac")
    constant(agent, 0.02)
    np.testing.assert_allclose(agent.predict(np.ones(3, np.float32))[0], own_answer(agent), rtol=1e-5)
    state = {key: torch.full_like(value, -0.03) for key, value in agent.policy.state_dict().items()}
    agent.policy.load_state_dict(state, assign=True)
    np.testing.assert_allclose(agent.predict(np.ones(3, np.float32))[0], own_answer(agent), rtol=1e-5)


def test_copy_of_an_agent_acts_and_learns_by_itself() -> None:
    agent = make_agent("sac").learn(60)
    before = agent.predict(np.ones(3, np.float32))[0]
    other = copy.deepcopy(agent)
    constant(other, 0.02)
    np.testing.assert_allclose(other.predict(np.ones(3, np.float32))[0], own_answer(other), rtol=1e-5)
    other.learn(30)
    np.testing.assert_array_equal(agent.predict(np.ones(3, np.float32))[0], before)
