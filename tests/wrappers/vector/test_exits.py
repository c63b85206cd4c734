"""Early exits in a batch: each environment pays for the exit that its row took."""

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from budget_wrappers.deploy.exit_acting import ExitForward
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.wrappers.vector import RecordComputeStatistics
from tests.wrappers.environments import SpacesEnv

N = 6


@pytest.fixture
def exits() -> ExitForward:
    torch.manual_seed(0)
    return ExitForward(EarlyExitNetwork(3, 3, (8, 8)), ComputeMeter("tests.exits"))


@pytest.mark.parametrize("seed", range(5))
def test_each_environment_pays_for_the_exit_its_row_took(exits: ExitForward, seed: int) -> None:
    meter = exits._meter
    envs = RecordComputeStatistics(SyncVectorEnv([lambda: SpacesEnv(end_at=1)] * N), meter)
    observations, _ = envs.reset(seed=seed)
    exits(observations, np.random.default_rng(seed))
    infos = envs.step(envs.action_space.sample())[4]
    expected = [float(exits.flops[way]) for way in exits.taken]
    assert infos["cost"].tolist() == infos["compute"]["flops"].tolist() == expected
    for way, name in enumerate(exits.names):
        assert infos["compute"]["share_steps"][name].tolist() == (exits.taken == way).astype(float).tolist()
    assert len(set(expected)) > 1 or seed  # rows do differ


def test_single_rows_in_a_row_come_to_the_same(exits: ExitForward) -> None:
    meter = exits._meter
    envs = RecordComputeStatistics(SyncVectorEnv([SpacesEnv] * N), meter)
    observations, _ = envs.reset(seed=0)
    rng, expected = np.random.default_rng(0), []
    for row in range(N):
        exits(observations[row : row + 1], rng)
        expected.append(float(exits.flops[exits.taken[0]]))
    assert envs.step(envs.action_space.sample())[4]["cost"].tolist() == expected


def test_nobody_asking_nothing_is_kept(exits: ExitForward) -> None:
    exits(np.zeros((N, 3), np.float32), np.random.default_rng(0))
    assert exits._meter.row_ledger is None
