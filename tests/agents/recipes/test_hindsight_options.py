"""Asymmetric sub-policies with hindsight: goals are relabelled for the sub-policies, whatever the options were."""

from pathlib import Path

import torch

from agents.common.monitors import Checkpoint
from agents.recipes.asymmetric import Asymmetric
from tests.agents.recipes.test_asymmetric import SETTINGS, weights
from tests.agents.test_hindsight import Line


def make() -> Asymmetric:
    return Asymmetric(Line(discrete=False, length=7), **{**SETTINGS, "hindsight": 4})


def test_the_shared_replay_relabels_and_the_master_s_does_not() -> None:
    agent = make()
    agent.learn(70)
    assert agent.large.replay is agent.small.replay
    sub_policies, master = agent.small.replay.sample(400, agent.generator), agent.master.replay.replay
    # Observations are (achieved, desired, position): goals are ±3 and ±4, an achieved one may be any of −7 … 7.
    assert set(sub_policies.observation[:, 1].tolist()) - {-4.0, -3.0, 3.0, 4.0}
    assert set(master.observation[: len(master), 1].tolist()) <= {-4.0, -3.0, 3.0, 4.0}
    # Rewards are those of the goal in the row: 0 where the step reaches it, −1 elsewhere.
    reached = (sub_policies.next_observation[:, 0] - sub_policies.next_observation[:, 1]).abs() < 0.5
    assert torch.equal(sub_policies.reward, -(~reached).float())


def test_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    whole, first = make(), make()
    path = tmp_path / "checkpoint.safetensors"
    whole.learn(70)
    first.learn(70, [Checkpoint(path, 30), lambda agent: agent.num_timesteps < 50])
    second = Asymmetric.load(path, Line(discrete=False, length=7))
    second.learn(70 - second.num_timesteps)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
