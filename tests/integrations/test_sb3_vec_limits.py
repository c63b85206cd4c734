"""A limit around a VecEnv ends episodes as Gymnasium's vectors see it, and methods reach the vector wrappers."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from budget_wrappers.errors import BudgetError, ConfigError
from budget_wrappers.integrations.sb3 import metered
from budget_wrappers.integrations.sb3_vec import wrapped
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import vector
from tests.gymnasium_versions import needs_masks, sync

COSTS = [50, 30]


def tried(make: Any) -> Any:
    """Return what ``make`` returns, or the error that the library or Stable-Baselines3 raises."""
    try:
        return make()
    except (BudgetError, AttributeError) as error:
        return error


def venv_of(meter: ComputeMeter, limit: int = 100, **settings: Any) -> Any:
    def wrap(envs: Any) -> Any:
        return vector.RecordComputeStatistics(vector.ComputeLimit(envs, limit, meter=meter, **settings), meter)

    return tried(lambda: wrapped(make_vec_env("CartPole-v1", n_envs=2, seed=0), wrap))


def steps(venv: Any, meter: ComputeMeter, n: int) -> list[Any]:
    told = []
    for _ in range(n):
        meter.add(80, "policy", rows=2, by_row=COSTS)
        told.append(venv.step(np.array([0, 1])))
    return told


def test_episodes_end_where_their_limits_are_used_up() -> None:
    meter = ComputeMeter()
    venv = venv_of(meter)
    assert not isinstance(venv, Exception), venv
    venv.reset()
    told = steps(venv, meter, 4)  # 50, 100 | 50, 100 and 30, 60, 90, 120
    assert [over.tolist() for _, _, over, _ in told] == [[False, False], [True, False], [False, False], [True, True]]
    assert [float(told[3][3][row]["compute"]["flops"]) for row in (0, 1)] == [100.0, 120.0]
    assert float(told[3][3][1]["compute"]["overshoot"]) == 20.0


@pytest.mark.parametrize(("ending", "truncated"), [("truncate", True), ("terminate", False)])
def test_a_limit_tells_whether_a_value_follows(ending: str, truncated: bool) -> None:
    meter = ComputeMeter()
    venv = venv_of(meter, on_exhausted=ending)
    assert not isinstance(venv, Exception), venv
    venv.reset()
    obs, _, _, infos = steps(venv, meter, 2)[1]
    assert infos[0]["TimeLimit.truncated"] is truncated
    assert infos[0]["terminal_observation"].shape == (4,)
    assert not np.array_equal(infos[0]["terminal_observation"], obs[0])  # the row was reset
    assert "terminal_observation" not in infos[1]


@needs_masks
def test_a_limited_venv_goes_as_a_limited_vector_of_gymnasium() -> None:
    meters = ComputeMeter("venv"), ComputeMeter("vector")
    venv = venv_of(meters[0])
    assert not isinstance(venv, Exception), venv
    envs = sync([lambda: gym.make("CartPole-v1")] * 2, "SameStep")
    envs = vector.RecordComputeStatistics(vector.ComputeLimit(envs, 100, meter=meters[1]), meters[1])
    venv.seed(7)
    np.testing.assert_allclose(venv.reset(), envs.reset(seed=7)[0], rtol=1e-6)
    for _ in range(9):
        for meter in meters:
            meter.add(80, "policy", rows=2, by_row=COSTS)
        obs, rewards, over, infos = venv.step(np.array([0, 1]))
        expected = envs.step(np.array([0, 1]))
        np.testing.assert_allclose(obs, expected[0], rtol=1e-6)
        assert (rewards.tolist(), over.tolist()) == (expected[1].tolist(), (expected[2] | expected[3]).tolist())
        final = expected[4].get("final_info", {})
        costs = [float(final["cost"][row] if over[row] else expected[4]["cost"][row]) for row in (0, 1)]
        assert [float(info["cost"]) for info in infos] == costs


def test_methods_and_attributes_of_the_vector_wrappers_are_reached_by_row() -> None:
    meter = ComputeMeter()
    venv = venv_of(meter)
    assert not isinstance(venv, Exception), venv
    venv.reset()
    assert tried(lambda: venv.env_method("set_budget", 500)) == [None, None]
    assert venv.env_method("set_budget", 70, indices=[1]) == [None]
    venv.reset()
    assert [int(left) for left in venv.get_attr("remaining")] == [500, 70]
    assert venv.env_method("has_wrapper_attr", "unwrapped") == [True, True]  # of the environments, as before


def test_a_budget_is_an_option_of_the_next_reset() -> None:
    venv = venv_of(ComputeMeter())
    assert not isinstance(venv, Exception), venv
    venv.set_options([{"budget": 300}, {"budget": 90}])
    venv.reset()
    assert [int(left) for left in venv.get_attr("remaining")] == [300, 90]


def test_a_penalty_without_a_mask_is_changed_for_all_or_refused() -> None:
    meter = ComputeMeter()
    venv = wrapped(
        make_vec_env("CartPole-v1", n_envs=2), lambda envs: vector.ComputePenaltyReward(envs, 0.1, meter=meter)
    )
    assert tried(lambda: venv.env_method("set_weight", 0.5)) == [None, None]
    assert venv.get_attr("weight") == [0.5, 0.5]
    with pytest.raises(ConfigError, match=r"set_weight.*leave indices out"):
        venv.env_method("set_weight", 0.5, indices=[0])


def test_the_budget_of_a_weight_that_adapts_is_one_for_all() -> None:
    def wrap(envs: Any) -> Any:
        return vector.ComputePenaltyReward(envs, "auto", budget=100.0, meter=ComputeMeter())

    venv = tried(lambda: wrapped(make_vec_env("CartPole-v1", n_envs=2), wrap))
    venv.set_options({"budget": 70.0})
    assert venv.get_attr("budget") == [70.0, 70.0]
    with pytest.raises(ConfigError, match=r"set_budget.*leave indices out"):
        venv.set_options([{"budget": 50.0}, {"budget": 60.0}])


def test_a_budget_is_the_limits_under_a_penalty() -> None:
    meter = ComputeMeter()

    def wrap(envs: Any) -> Any:
        return vector.ComputePenaltyReward(vector.ComputeLimit(envs, 500, meter=meter), 0.1, meter=meter)

    venv = tried(lambda: wrapped(make_vec_env("CartPole-v1", n_envs=2), wrap))
    venv.set_options([{"budget": 300}, {"budget": 90}])
    venv.reset()
    assert [int(left) for left in venv.get_attr("remaining")] == [300, 90]


def test_budgets_are_shown_around_a_venv() -> None:
    meter = ComputeMeter()

    def wrap(envs: Any) -> Any:
        return vector.BudgetAwareObservation(vector.ComputeLimit(envs, 100, meter=meter))

    venv = tried(lambda: wrapped(make_vec_env("CartPole-v1", n_envs=2), wrap))
    assert not isinstance(venv, Exception), venv
    venv.reset()
    told = steps(venv, meter, 2)
    assert told[0][0][:, -1].tolist() == pytest.approx([0.5, 0.7])
    assert told[1][0][:, -1].tolist() == pytest.approx([1.0, 0.4])  # row 0 has begun anew
    assert float(told[1][3][0]["terminal_observation"][-1]) == 0.0


class Goals(gym.Env):
    """Observes a dictionary; its number of resets is in it."""

    observation_space = gym.spaces.Dict(resets=gym.spaces.Box(0, 99, (1,)), steps=gym.spaces.Box(0, 99, (1,)))
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.resets = self.steps = 0

    def seen(self) -> dict[str, np.ndarray]:
        return {"resets": np.array([self.resets], np.float32), "steps": np.array([self.steps], np.float32)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.resets, self.steps = self.resets + 1, 0
        return self.seen(), {"begun": self.resets}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self.seen(), 0.0, False, False, {}


def test_dictionaries_are_reset_by_row() -> None:
    meter = ComputeMeter()
    venv = tried(lambda: wrapped(DummyVecEnv([Goals] * 2), lambda envs: vector.ComputeLimit(envs, 100, meter=meter)))
    assert not isinstance(venv, Exception), venv
    venv.reset()
    obs, _, _, infos = steps(venv, meter, 2)[1]
    assert (obs["resets"].ravel().tolist(), obs["steps"].ravel().tolist()) == ([2.0, 1.0], [0.0, 2.0])
    assert float(infos[0]["terminal_observation"]["steps"][0]) == 2.0
    assert [info["begun"] for info in venv.reset_infos] == [2, 1]


def test_wrappers_inside_that_would_miss_the_reset_are_refused_with_a_remedy_that_works() -> None:
    meter = ComputeMeter()
    bare = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 2)
    with pytest.raises(ConfigError, match=r"put VecNormalize, VecMonitor .* around"):
        wrapped(VecMonitor(bare), lambda envs: vector.ComputeLimit(envs, 9, meter=meter))
    limited = tried(lambda: wrapped(bare, lambda envs: vector.ComputeLimit(envs, 100, meter=meter)))
    venv = VecMonitor(VecNormalize(limited))
    venv.reset()
    assert steps(venv, meter, 2)[1][3][0]["episode"]["l"] == 2


def test_a_model_learns_to_choose_under_a_limit() -> None:
    meter = ComputeMeter()

    def wrap(envs: Any) -> Any:
        policies = [FunctionPolicy(lambda obs, act=act: act, 1 + act, f"rule {act}") for act in (0, 1)]
        envs = vector.SubPolicyAction(envs, policies, meter=meter)
        return vector.RecordComputeStatistics(vector.ComputeLimit(envs, 6, meter=meter), meter)

    venv = tried(lambda: wrapped(make_vec_env("CartPole-v1", n_envs=2), wrap))
    assert not isinstance(venv, Exception), venv
    model = metered(
        PPO("MlpPolicy", venv, n_steps=8, batch_size=16, n_epochs=1, policy_kwargs={"net_arch": [4]}), "sb3"
    )
    assert model.learn(16).num_timesteps == 16
