"""Vector environments of other libraries: what the adapter takes, and that costs are right around it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import RecordComputeStatistics as ScalarRecord
from budget_wrappers.wrappers.vector import ComputePenaltyReward, RecordComputeStatistics, as_vector_env
from budget_wrappers.wrappers.vector.modes import autoreset_mode
from tests.gymnasium_versions import AutoresetMode
from tests.wrappers.vector.episodes import Policy, RandomLengthEnv, batch_stories, single_story

SEED, N = 5, 3


class Pool:
    """Of EnvPool's shape: seeded when made, spaces of one environment, float32 rewards, the action after an end resets.

    Attributes:
        infos: beside ``env_id``, put into each dictionary.
    """

    def __init__(self, functions: list[Callable[[], gym.Env]], seed: int = SEED, batch_size: int = 0) -> None:
        self.envs = [function() for function in functions]
        self.observation_space, self.action_space = self.envs[0].observation_space, self.envs[0].action_space
        self.spec = SimpleNamespace(config=SimpleNamespace(num_envs=len(functions), batch_size=batch_size))
        self._seeds: list[int | None] = [seed + row for row in range(len(functions))]
        self._over = np.zeros(len(functions), bool)
        self.closed = False

    def reset(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        told = [env.reset(seed=seed) for env, seed in zip(self.envs, self._seeds, strict=True)]
        self._seeds = [None] * len(self.envs)
        self._over[:] = False
        return np.stack([obs for obs, _ in told]), self._infos([info for _, info in told])

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        told: list[Any] = [
            (*env.reset()[:1], 0.0, False, False, {"own": np.float64(0)}) if over else env.step(action)
            for env, over, action in zip(self.envs, self._over, actions, strict=True)
        ]
        observations, rewards, terminations, truncations, infos = (list(column) for column in zip(*told, strict=True))
        self._over = np.logical_or(terminations, truncations)
        flags = np.array(terminations), np.array(truncations)
        return np.stack(observations), np.array(rewards, np.float32), *flags, self._infos(infos)

    def _infos(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        rows = np.arange(len(self.envs), dtype=np.int32)
        return {"env_id": rows, "own": np.array([info["own"] for info in infos]), "players": {"env_id": rows}}

    def close(self) -> None:
        self.closed = True


def pool(**kwargs: Any) -> Pool:
    return Pool([RandomLengthEnv] * N, **kwargs)


class Float32(gym.RewardWrapper):
    """Rewards as the pool hands them out."""

    def reward(self, reward: Any) -> Any:
        return np.float32(reward)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def test_a_pool_tells_what_its_environments_tell_singly() -> None:
    policy = Policy(ComputeMeter("tests"))
    envs = RecordComputeStatistics(as_vector_env(pool()), policy.meter)
    with pytest.warns(UserWarning, match="Pool.reset takes no seed, so seed=5 changes nothing"):
        batch = batch_stories(envs, "NextStep", policy, 80, SEED)
    for row, story in enumerate(batch):
        meter = ComputeMeter("tests")
        single = single_story(ScalarRecord(Float32(RandomLengthEnv()), meter), Policy(meter), len(story), SEED + row)
        for one, other in zip(story, single, strict=True):
            if one[0] == "reset":
                one[-1]["own"] = other[-1]["own"]  # the pool's own infos of resets are none of ours
            told = {key: value for key, value in one[-1].items() if key not in ("env_id", "players")}
            assert data_equivalence([*one[:-1], told], list(other), exact=True)
    assert (policy.meter.executed, policy.meter.uncharged) == (policy.executed, policy.wasted)
    assert policy.wasted > 0


def test_rewards_stay_float32(meter: ComputeMeter) -> None:
    envs = ComputePenaltyReward(as_vector_env(pool()), 0.5, meter=meter)
    envs.reset()
    meter.add(12, rows=N)
    assert envs.step(np.zeros(N, int))[1].dtype == np.float32


def test_spaces_are_batched_and_infos_get_masks() -> None:
    envs = as_vector_env(pool())
    assert envs.num_envs == N
    assert autoreset_mode(envs) == "NextStep"
    assert envs.observation_space.shape == (N, *envs.single_observation_space.shape)
    observations, infos = envs.reset()
    assert observations in envs.observation_space
    assert infos["_own"].tolist() == [True] * N
    assert "Pool, num_envs=3" in repr(envs)


def test_closing_closes_the_pool() -> None:
    envs = as_vector_env(pool())
    envs.close()
    assert envs.foreign.closed


def test_an_environment_of_gymnasium_stays_itself() -> None:
    envs = gym.vector.SyncVectorEnv([RandomLengthEnv])
    assert as_vector_env(envs) is envs


def test_rows_that_come_when_they_are_ready_are_refused() -> None:
    """EnvPool's asynchronous mode: a cost belongs to the row that was acted on."""
    with pytest.raises(ConfigError, match=r"2 of 3 environments.*batch_size=num_envs"):
        as_vector_env(pool(batch_size=2))
    envs = as_vector_env(pool())
    envs.foreign._infos = lambda infos: {"env_id": np.array([2, 0, 1])}
    with pytest.raises(SpaceError, match=r"order \[2 0 1\]; expected that of the actions"):
        envs.reset()


def test_a_reset_of_some_rows_that_would_reset_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes no options: all of its environments would be reset"):
        as_vector_env(pool()).reset(options={"reset_mask": np.array([True, False, False])})


def test_seed_and_options_go_where_they_are_taken() -> None:
    given: list[Any] = []

    class Taking(Pool):
        def reset(self, seed: int | None = None, **kwargs: Any) -> Any:
            given.append((seed, kwargs))
            return super().reset()

    as_vector_env(Taking([RandomLengthEnv])).reset(seed=3, options={"budget": 0.5})
    assert given == [(3, {"options": {"budget": 0.5}})]


def test_a_mode_is_said_by_value_or_member() -> None:
    for mode in (AutoresetMode.SAME_STEP, "SameStep"):
        assert autoreset_mode(as_vector_env(pool(), mode)) == "SameStep"
    with pytest.raises(ConfigError, match="expected 'NextStep', 'SameStep' or 'Disabled'"):
        as_vector_env(pool(), "later")


@pytest.mark.parametrize("given", [None, RandomLengthEnv(), object()])
def test_what_is_no_vector_environment_is_refused(given: Any) -> None:
    with pytest.raises(SpaceError, match="expected an environment with num_envs"):
        as_vector_env(given)


def test_the_old_step_of_four_is_refused() -> None:
    """As Stable-Baselines3 has it, and EnvPool without its Gymnasium interface."""
    envs = as_vector_env(pool())
    envs.foreign.step = lambda actions: (None, None, None, {})
    with pytest.raises(SpaceError, match=r"Pool\.step returned tuple of length 4; expected 5"):
        envs.step(None)


def test_envpool_itself(meter: ComputeMeter) -> None:
    envpool = pytest.importorskip("envpool")
    envs = as_vector_env(envpool.make("CartPole-v1", env_type="gymnasium", num_envs=N, seed=0))
    envs = RecordComputeStatistics(envs, meter)
    envs.reset()
    total, steps = 0.0, 0
    for _ in range(200):
        meter.add(6 * N, rows=N)
        infos = envs.step(np.zeros(N, np.int32))[4]
        total += infos["cost"].sum()
        steps += int(infos["cost"].astype(bool).sum())
    assert total == 6 * steps == meter.executed - meter.uncharged
    assert meter.uncharged > 0
