"""Who acted when: recorded from an episode, at no cost to it, and drawn."""

import gymnasium as gym
import numpy as np
import pytest

from agents.report.timeline import plot_timeline, record_timeline
from budget_wrappers import ComputeMeter
from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import RecordComputeStatistics, SubPolicyAction


class Alternating:
    """A master that takes turns."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        self.calls += 1
        return np.array(self.calls % 2), None


def options(meter: ComputeMeter, hold: int = 4) -> RecordComputeStatistics:
    policies = [
        FunctionPolicy(lambda observation: np.float32([observation[0]]), 10, "small"),
        FunctionPolicy(lambda observation: np.float32([-observation[0]]), 40, "large"),
    ]
    env = gym.make("Pendulum-v1", max_episode_steps=10)
    return RecordComputeStatistics(SubPolicyAction(env, policies, hold=hold, meter=meter), meter)


def test_recorded_episode_is_the_one_that_was_run_and_costs_no_more() -> None:
    meter = ComputeMeter()
    timeline = record_timeline(Alternating(), options(meter), seed=3)
    # Large first, for 4 steps, then small for 4, then large for the last 2: 6·40 + 4·10 FLOPs.
    assert timeline.options.tolist() == [1] * 4 + [0] * 4 + [1] * 2
    assert meter.totals["act"] == 6 * 40 + 4 * 10
    assert timeline.names == ("small", "large")
    assert timeline.actions.shape == (2, 10, 1)
    np.testing.assert_array_equal(timeline.actions[0], -timeline.actions[1])
    np.testing.assert_array_equal(timeline.taken, timeline.actions[timeline.options, np.arange(10)])
    env = gym.make("Pendulum-v1", max_episode_steps=10)
    env.reset(seed=3)
    np.testing.assert_array_equal(timeline.rewards, [env.step(action)[1] for action in timeline.taken])


def test_picture_is_drawn(tmp_path) -> None:
    timeline = record_timeline(Alternating(), options(ComputeMeter(), hold=1), seed=0)
    path = plot_timeline(timeline, tmp_path / "deep" / "timeline.png", "an episode")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["timeline.png"]


def test_environment_without_choices_is_refused() -> None:
    with pytest.raises(ConfigError, match="no SubPolicyAction"):
        record_timeline(Alternating(), gym.make("Pendulum-v1"), seed=0)


def test_actions_that_are_no_vectors_are_refused() -> None:
    policies = [FunctionPolicy(lambda observation: 0, flops, f"p{flops}") for flops in (1, 2)]
    with pytest.raises(SpaceError, match="Discrete"):
        record_timeline(Alternating(), SubPolicyAction(gym.make("CartPole-v1"), policies), seed=0)
