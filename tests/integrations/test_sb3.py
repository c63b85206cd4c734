"""Third-party models are metered to the digit, train as without, and come back unchanged."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from budget_wrappers.errors import ConfigError, MeterError
from budget_wrappers.integrations.sb3 import as_sub_policy, flops_per_action, metered, unmeter
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction

EPISODE = 20
SMALL = {"policy_kwargs": {"net_arch": [8, 8]}, "seed": 0, "device": "cpu"}
OFF_POLICY = {**SMALL, "learning_starts": 10, "batch_size": 16, "buffer_size": 200}


def pendulum(meter: Any = None) -> gym.Env:
    env = gym.make("Pendulum-v1", max_episode_steps=EPISODE)
    return env if meter is None else RecordComputeStatistics(env, meter)


def cartpole(meter: Any = None) -> gym.Env:
    env = gym.make("CartPole-v1", max_episode_steps=EPISODE)
    return env if meter is None else RecordComputeStatistics(env, meter)


CASES: dict[str, tuple[type, Callable[..., gym.Env], dict[str, Any]]] = {
    "sac": (SAC, pendulum, OFF_POLICY),
    "sac with state-dependent noise": (SAC, pendulum, {**OFF_POLICY, "use_sde": True}),
    "td3": (TD3, pendulum, OFF_POLICY),
    "td3 by episode": (TD3, pendulum, {**OFF_POLICY, "train_freq": (1, "episode"), "gradient_steps": -1}),
    "td3 in rounds of 3": (TD3, pendulum, {**OFF_POLICY, "train_freq": 2, "gradient_steps": 3}),
    "ddpg": (DDPG, pendulum, OFF_POLICY),
    "dqn": (DQN, cartpole, {**OFF_POLICY, "gradient_steps": 2}),
    "ppo": (PPO, cartpole, {**SMALL, "n_steps": 32, "batch_size": 16, "n_epochs": 2}),
    "ppo that may stop early": (PPO, cartpole, {**SMALL, "n_steps": 32, "batch_size": 16, "target_kl": 1e-4}),
    "a2c": (A2C, cartpole, SMALL),
}
STEPS = 45


def make(case: str, meter: Any = None) -> Any:
    model_class, env_of, settings = CASES[case]
    return model_of(model_class, env_of(meter), settings)


def model_of(model_class: type, env: Any, settings: dict[str, Any] = OFF_POLICY) -> Any:
    # A copy: Stable-Baselines3 writes into policy_kwargs.
    return model_class("MlpPolicy", env, **copy.deepcopy(settings))


def weights(model: Any) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.policy.state_dict().values()]


def counted_by_torch(model: Any, steps: int) -> int:
    """Train ``model`` and return what torch's own counter sees in its updates."""
    total, train = 0, model.train

    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal total
        with FlopCounterMode(display=False) as counter:
            train(*args, **kwargs)
        total += counter.get_total_flops()

    model.train = counted
    model.learn(steps)
    return total


@pytest.fixture(params=CASES)
def trained(request: pytest.FixtureRequest) -> tuple[Any, ComputeMeter, Any, int]:
    """A metered model, its meter, the same model without, and torch's count of its updates."""
    meter = ComputeMeter()
    model = metered(make(request.param, meter), meter).learn(STEPS)
    plain = make(request.param)
    return model, meter, plain, counted_by_torch(plain, STEPS)


def test_learning_is_what_torch_counts_and_weights_are_those_of_an_unmetered_run(trained: Any) -> None:
    model, meter, plain, counted = trained
    values = values_in_rollouts(model)
    assert meter.totals["learn"] == counted + values
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(plain), strict=True))


def values_in_rollouts(model: Any) -> int:
    """Value estimates while collecting are for learning: 2·(4·8 + 8·8 + 8·1) = 208 FLOPs each (PPO and A2C only).

    One a step, one at the end of each rollout, one at each time limit: with 20 steps an episode at most, CartPole
    falls before the limit or reaches it, which the model's own buffer of episode lengths tells.
    """
    if not isinstance(model, PPO | A2C):
        return 0
    lengths = [info["l"] for info in model.ep_info_buffer]
    estimates = model.num_timesteps + model.num_timesteps // model.n_steps + lengths.count(EPISODE)
    return 208 * estimates


def test_sac_acting_is_its_actor_times_the_steps_after_the_random_ones() -> None:
    meter = ComputeMeter()
    model = metered(model_of(SAC, pendulum(meter)), meter)
    model.learn(STEPS)
    # Pendulum: O = 3, A = 1, both heads: 2·(3·8 + 8·8 + 2·8·1) = 208. The first 10 of 45 steps are random.
    assert flops_per_action(model) == 208
    assert dict(meter.totals.by_name) == {"actor": 35 * 208}


def test_target_networks_charge_nothing_to_acting() -> None:
    meter = ComputeMeter()
    model = metered(model_of(TD3, pendulum(meter)), meter)
    observation = torch.zeros(4, 3)
    with torch.no_grad():
        model.actor_target(observation)
        model.critic_target(observation, torch.zeros(4, 1))
    assert meter.take().executed == 0


def test_policy_gradient_acting_is_its_policy_side_alone() -> None:
    meter = ComputeMeter()
    model = metered(make("ppo", meter), meter)
    model.learn(32)
    # CartPole: O = 4, A = 2: 2·(4·8 + 8·8 + 8·2) = 224, the same in a rollout as in predict.
    assert (flops_per_action(model), meter.totals["act"]) == (224, 32 * 224)


def test_predict_and_evaluate_policy_are_charged() -> None:
    env = pendulum("test.sb3.evaluate")
    model = metered(model_of(SAC, env), "test.sb3.evaluate")
    evaluate_policy(model, Monitor(env), n_eval_episodes=2)
    assert get_meter("test.sb3.evaluate").totals["act"] == 2 * EPISODE * flops_per_action(model)
    assert model.meter is get_meter("test.sb3.evaluate")


def test_our_evaluation_finds_the_meter_of_a_metered_model() -> None:
    from agents.loop.evaluate import evaluate_policy as ours

    model = metered(model_of(SAC, pendulum()), ComputeMeter())
    assert ours(model, pendulum(), episodes=1).flops_per_step == 208


# ---- nothing is left behind -----------------------------------------------------------------------------------------


def test_unmeter_leaves_no_trace() -> None:
    for case in ("sac", "ppo"):
        model = make(case)
        before = dict(vars(model))
        hooks = [len(module._forward_hooks) for module in model.policy.modules()]
        attributes = set(vars(model.policy))
        assert unmeter(metered(model, ComputeMeter())) is model
        assert type(model) is CASES[case][0]
        assert vars(model) == before
        assert [len(module._forward_hooks) for module in model.policy.modules()] == hooks
        assert set(vars(model.policy)) == attributes


def test_unmetered_model_charges_nothing() -> None:
    meter = ComputeMeter()
    model = unmeter(metered(make("sac"), meter))
    model.learn(20)
    assert (meter.totals["act"], meter.totals["learn"]) == (0, 0)


def test_metering_twice_and_unmetering_nothing_raise() -> None:
    model = metered(make("sac"), ComputeMeter())
    with pytest.raises(MeterError, match="metered already"):
        metered(model, ComputeMeter())
    with pytest.raises(MeterError, match="is not metered"):
        unmeter(make("sac"))


def test_two_models_on_one_meter_are_both_charged() -> None:
    # A model made or loaded again in one session: the old one may still be there.
    meter = ComputeMeter()
    for model in (metered(make("sac"), meter), metered(make("sac"), meter)):
        model.predict(np.zeros(3, np.float32))
    assert meter.take().executed == 2 * 208


def test_copy_of_a_metered_model_charges_nothing() -> None:
    meter = ComputeMeter()
    model = metered(make("sac"), meter)
    twin = copy.deepcopy(model.policy)
    twin.predict(np.zeros(3, np.float32))
    assert meter.take().executed == 0


class OwnTrain(SAC):
    """A subclass whose rounds of updates nobody knows: every second one does nothing."""

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        if self._n_updates % 2 == 0:
            super().train(gradient_steps, batch_size)
        else:
            self._n_updates += 1


def test_a_subclass_with_its_own_train_is_counted_in_each_round() -> None:
    meter = ComputeMeter()
    metered(model_of(OwnTrain, pendulum(meter)), meter).learn(40)
    plain = model_of(OwnTrain, pendulum())
    assert meter.totals["learn"] == counted_by_torch(plain, 40)


def test_an_object_that_is_no_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"expected a Stable-Baselines3 model .*watch what acts by hand"):
        metered(object())


# ---- save and load --------------------------------------------------------------------------------------------------


def test_save_and_load_work_and_the_loaded_model_is_not_metered(tmp_path: Path) -> None:
    meter = ComputeMeter()
    model = metered(make("sac", meter), meter)
    model.learn(20)
    model.save(tmp_path / "model.zip")
    for loader in (SAC, model):
        loaded = loader.load(tmp_path / "model.zip", device="cpu")
        assert type(loaded) is SAC
        assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(loaded), strict=True))
        before = meter.totals["act"]
        loaded.predict(np.zeros(3, np.float32))
        assert meter.totals["act"] == before
    assert metered(loaded, ComputeMeter("other")).meter.name == "other"


# ---- vector environments and wrappers -------------------------------------------------------------------------------


def recorded(env: gym.Env) -> gym.Env:
    return RecordComputeStatistics(env, "test.sb3.vector")


def test_scalar_wrapper_in_a_vector_env_of_one_works() -> None:
    env = make_vec_env("Pendulum-v1", n_envs=1, wrapper_class=recorded)
    model = metered(model_of(SAC, env), "test.sb3.vector")
    model.learn(20)
    assert get_meter("test.sb3.vector").totals["act"] == 10 * 208
    unmeter(model)


def test_scalar_wrapper_in_a_vector_env_of_two_says_what_to_do_instead() -> None:
    env = make_vec_env("Pendulum-v1", n_envs=2, wrapper_class=recorded)
    model = metered(model_of(SAC, env), "test.sb3.vector")
    with pytest.raises(MeterError, match=r"n_envs=1.*wrappers\.vector"):
        model.learn(40)
    unmeter(model)


def test_monitor_inside_the_wrapper_logs_the_return_without_the_penalty() -> None:
    meter = ComputeMeter()

    def penalised(env: gym.Env) -> gym.Env:
        return RecordComputeStatistics(ComputePenaltyReward(env, weight=0.01, meter=meter), meter)

    limit = {"max_episode_steps": EPISODE}
    env = make_vec_env("Pendulum-v1", n_envs=1, wrapper_class=penalised, env_kwargs=limit)
    model = metered(model_of(SAC, env, {**OFF_POLICY, "learning_starts": 0}), meter)
    model.learn(EPISODE)
    stored = float(model.replay_buffer.rewards[:EPISODE].sum())
    # 20 steps of 208 FLOPs at 0.01 a FLOP: 41.6 less than what Monitor saw.
    assert model.ep_info_buffer[0]["r"] - stored == pytest.approx(41.6, abs=1e-3)


def test_budget_changes_through_a_vector_env() -> None:
    meter = ComputeMeter()
    env = DummyVecEnv([lambda: Monitor(ComputeLimit(pendulum(), 1e6, on_exhausted="truncate", meter=meter))])
    env.env_method("set_budget", 5e5)
    assert env.get_attr("max_flops") == [5e5]


@pytest.mark.parametrize(("weight", "warned"), [(1e-12, 1), (1e-3, 0)])
def test_penalty_that_float32_loses_is_named_once(weight: float, warned: int) -> None:
    meter = ComputeMeter()
    model = metered(model_of(SAC, ComputePenaltyReward(pendulum(), weight=weight, meter=meter)), meter)
    # Pendulum's rewards go to 16; float32 has steps of 1e-6 there. 208 FLOPs cost 2e-10, or 0.2.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.learn(15)
    assert sum("float32: beside rewards" in str(warning.message) for warning in caught) == warned


# ---- as sub-policies, and as the master -----------------------------------------------------------------------------


def test_model_as_sub_policy_acts_as_it_predicts() -> None:
    model = make("td3")
    policy = as_sub_policy(model, "td3")
    observation = np.array([1.0, 0.0, 0.5], np.float32)
    assert (policy.name, policy.flops) == ("td3", 2 * (3 * 8 + 8 * 8 + 8 * 1))
    np.testing.assert_array_equal(policy(observation), model.predict(observation, deterministic=True)[0])


def test_sub_policy_normalises_as_training_did() -> None:
    env = VecNormalize(DummyVecEnv([pendulum]))
    model = model_of(SAC, env)
    env.obs_rms.mean = np.array([0.5, 0.5, 3.0])
    observation = np.array([1.0, 0.0, 0.5], np.float32)
    expected = model.predict(env.normalize_obs(observation), deterministic=True)[0]
    policy = as_sub_policy(model)
    np.testing.assert_array_equal(policy(observation), expected)
    np.testing.assert_allclose(policy.batch([observation, observation]), [expected] * 2, atol=1e-6)


def test_unmodified_dqn_is_the_master_of_sub_policies() -> None:
    meter = ComputeMeter()
    small = as_sub_policy(model_of(SAC, pendulum()), "small")
    wide = {**OFF_POLICY, "policy_kwargs": {"net_arch": [16, 16]}}
    large = as_sub_policy(model_of(SAC, pendulum(), wide), "large")
    options = SubPolicyAction(pendulum(), [small, large], hold=3, weight=0.1, meter=meter)
    master = metered(model_of(DQN, RecordComputeStatistics(options, meter)), meter)
    before = weights(master)
    master.learn(40)
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(master), strict=True))
    # O = 3, K = 2: 2·(3·8 + 8·8 + 8·2) = 208 a greedy decision; the rest are the sub-policies' primitive steps.
    spent = meter.totals.by_name
    assert set(spent) == {"small", "large", "q_net"}
    assert spent["q_net"] % 208 == 0
    assert spent["small"] % 208 == spent["large"] % large.flops == 0
    episodes, rest = divmod(40, -(-EPISODE // 3))  # 7 decisions an episode: 6 of 3 steps and one of 2
    assert spent["small"] // 208 + spent["large"] // large.flops == episodes * EPISODE + 3 * rest


class Costs(gym.Wrapper):
    """Keeps the cost of every step."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.costs: list[int] = []

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self.costs.append(result[4]["cost"])
        return result


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("case", ["sac", "ppo"])
def test_no_step_of_the_training_pays_for_an_evaluation(case: str, wrapped: bool) -> None:
    model_class, env_of, settings = CASES[case]
    meter = ComputeMeter("own")
    env = Costs(env_of(meter))
    model = metered(model_class("MlpPolicy", env, **copy.deepcopy(settings)), meter)
    evaluation = Monitor(env_of(meter if wrapped else None))
    each = flops_per_action(model)
    model.learn(64, callback=EvalCallback(evaluation, eval_freq=10, n_eval_episodes=2, verbose=0))
    assert set(env.costs) <= {0, each}
    assert meter.totals["act"] > 64 * each  # counted they are


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_sub_policy_declares_what_it_runs(deterministic: bool) -> None:
    model = make("sac with state-dependent noise")
    policy = as_sub_policy(model, deterministic=deterministic)
    with FlopCounterMode(display=False) as counter:
        policy(model.observation_space.sample())
    assert policy.flops == counter.get_total_flops()
