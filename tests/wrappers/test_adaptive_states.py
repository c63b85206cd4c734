"""The state of a weight that adapts is plain numbers, whoever counted, and only a sound one is taken back."""

import json
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.errors import CheckpointError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.multiplier import AdaptiveWeight
from budget_wrappers.wrappers.vector import ComputePenaltyReward
from tests.gymnasium_versions import AutoresetMode, sync


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_vector_environment_s_state_goes_through_json(mode: AutoresetMode) -> None:
    meter = ComputeMeter()
    makers = [lambda: gym.make("CartPole-v1", max_episode_steps=4)] * 3
    env = ComputePenaltyReward(sync(makers, mode), weight="auto", budget=100.0, meter=meter)
    env.reset(seed=0)
    for _ in range(7):  # over the end of an episode
        meter.add(150, rows=3)
        env.step(np.array([0, 1, 0]))
    state = json.loads(json.dumps(env.state_dict()))
    assert state["_steps"] > 0
    env.load_state_dict(state)
    assert env.state_dict() == state


@pytest.mark.parametrize(
    "change",
    [
        {"weight": -5.0},
        {"budget": -3.0},
        {"budget": 0.0},
        {"_steps": -7},
        {"_steps": 7.5},
        {"_reward": -1.0},
        {"_log": 1e3},
        {"weight": math.nan},
    ],
    ids=str,
)
def test_an_altered_state_is_refused_and_nothing_has_changed(change: dict[str, Any]) -> None:
    weight = AdaptiveWeight(budget=100.0)
    weight.count(150.0, 3, 1.0)
    before = weight.state_dict()
    with pytest.raises(CheckpointError, match="is not that of an adaptive weight"):
        weight.load_state_dict({**before, **change})
    assert weight.state_dict() == before
    weight.load_state_dict(before)
