"""d3rlpy: data sets hold what acting cost, and algorithms are metered to the digit, online and offline."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("d3rlpy")

import d3rlpy
from d3rlpy.algos import (
    BCConfig,
    BCQConfig,
    CQLConfig,
    DiscreteCQLConfig,
    DiscreteRandomPolicyConfig,
    DQNConfig,
    IQLConfig,
    SACConfig,
    TD3Config,
)
from d3rlpy.algos.qlearning.explorers import ConstantEpsilonGreedy
from d3rlpy.dataset import create_fifo_replay_buffer
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.metrics import EnvironmentEvaluator
from d3rlpy.models import VectorEncoderFactory

from budget_wrappers.errors import ConfigError, MeterError
from budget_wrappers.integrations.d3rlpy import (
    Episodes,
    as_sub_policy,
    flops_per_action,
    metered,
    record_episodes,
    unmeter,
)
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction

EPISODE, BATCH = 20, 16
ENCODER = VectorEncoderFactory([8, 8])
BOTH = {"actor_encoder_factory": ENCODER, "critic_encoder_factory": ENCODER, "batch_size": BATCH}
CASES: dict[str, Callable[[], Any]] = {
    "dqn": lambda: DQNConfig(batch_size=BATCH, encoder_factory=ENCODER, target_update_interval=5).create(),
    "discrete cql": lambda: DiscreteCQLConfig(batch_size=BATCH, encoder_factory=ENCODER).create(),
    "bc": lambda: BCConfig(batch_size=BATCH, encoder_factory=ENCODER).create(),
    "cql": lambda: CQLConfig(**BOTH).create(),
    "td3": lambda: TD3Config(**BOTH).create(),
    "iql": lambda: IQLConfig(**BOTH, value_encoder_factory=ENCODER).create(),
    "bcq": lambda: BCQConfig(**BOTH, imitator_encoder_factory=ENCODER, rl_start_step=2).create(),
}
DISCRETE = ("dqn", "discrete cql")
# CartPole: O = 4, A = 2: 2·(4·8 + 8·8 + 8·2) = 224.
CARTPOLE = 224
# Pendulum: O = 3, A = 1: 2·(3·8 + 8·8 + 8·1) = 192; a Gaussian has a second head: + 2·8·1.
PENDULUM, GAUSSIAN = 192, 208


def cartpole(meter: ComputeMeter | None = None, weight: float | None = None) -> gym.Env:
    env = gym.make("CartPole-v1", max_episode_steps=EPISODE)
    if weight is not None:
        env = ComputePenaltyReward(env, weight=weight, meter=meter)
    return env if meter is None else RecordComputeStatistics(env, meter)


def pendulum(meter: ComputeMeter | None = None) -> gym.Env:
    env = gym.make("Pendulum-v1", max_episode_steps=EPISODE)
    return env if meter is None else RecordComputeStatistics(env, meter)


def recorded(discrete: bool = True, episodes: int = 3, **settings: Any) -> Episodes:
    """Return episodes of a rule that costs 100 FLOPs where the cart or the pendulum moves to the right, else 10."""
    meter = ComputeMeter()
    env = cartpole(meter, **settings) if discrete else pendulum(meter)

    def rule(observation: np.ndarray) -> Any:
        meter.add(100 if observation[1] > 0 else 10)
        return np.int64(observation[2] > 0) if discrete else observation[1:2]

    return record_episodes(env, rule, episodes)


def build(case: str, seed: int = 0) -> tuple[Any, Any]:
    """Return an algorithm with networks, and its data."""
    d3rlpy.seed(seed)
    data = recorded(case in DISCRETE).dataset()
    algo = CASES[case]()
    algo.build_with_dataset(data)
    return algo, data


def fit(algo: Any, data: Any, steps: int = 6, **settings: Any) -> Any:
    silent = {"show_progress": False, "logger_adapter": NoopAdapterFactory()}
    return algo.fit(data, n_steps=steps, n_steps_per_epoch=steps, **silent, **settings)


def fit_online(algo: Any, env: gym.Env, steps: int = 60) -> None:
    env.reset(seed=0)
    algo.fit_online(
        env,
        create_fifo_replay_buffer(1000, env=env),
        ConstantEpsilonGreedy(0.5),
        n_steps=steps,
        n_steps_per_epoch=steps,
        show_progress=False,
        logger_adapter=NoopAdapterFactory(),
    )


def weights(algo: Any) -> list[torch.Tensor]:
    networks = algo.impl.modules.get_torch_modules().values()
    return [tensor.clone() for network in networks for tensor in network.state_dict().values()]


def counted_by_torch(algo: Any, run: Callable[[], Any]) -> int:
    """Run and return what torch's own counter sees in the updates."""
    total, update = 0, algo.update

    def counted(batch: Any) -> Any:
        nonlocal total
        with FlopCounterMode(display=False) as counter:
            metrics = update(batch)
        total += counter.get_total_flops()
        return metrics

    algo.update = counted
    run()
    del algo.update
    return total


# ---- data sets ------------------------------------------------------------------------------------------------------


def test_recorded_costs_and_penalised_data_sets() -> None:
    episodes = recorded()
    assert set(episodes.costs.tolist()) == {10.0, 100.0}
    assert len(episodes.reports) == episodes.terminals.sum() + episodes.timeouts.sum() == 3
    # A reward of 1 a step, less 0.001 a FLOP: 0.99 and 0.9.
    data = episodes.dataset(weight=0.001)
    rewards = np.concatenate([episode.rewards for episode in data.episodes])[:, 0]
    np.testing.assert_allclose(rewards, np.where(episodes.costs == 10.0, 0.99, 0.9).astype(np.float32))
    assert (data.dataset_info.action_size, data.size()) == (2, 3)
    plain = np.concatenate([episode.rewards for episode in episodes.dataset().episodes])
    assert set(plain.flatten().tolist()) == {1.0}
    assert episodes.observations.shape == (len(episodes.rewards), 4)


def test_both_returns_of_an_episode_are_recorded() -> None:
    episodes = recorded(weight=0.001, episodes=1)
    (report,) = episodes.reports
    assert report["return_raw"] == len(episodes.rewards)
    assert report["return_penalised"] == pytest.approx(episodes.rewards.sum())
    assert report["return_raw"] - report["return_penalised"] == pytest.approx(0.001 * episodes.costs.sum())


def test_a_second_penalty_and_a_bad_weight_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"weight=0\.5 .*without ComputePenaltyReward"):
        recorded(weight=0.001, episodes=1).dataset(weight=0.5)
    with pytest.raises(ConfigError, match="weight=-1"):
        recorded(episodes=1).dataset(weight=-1)


def test_penalties_that_float32_loses_are_named() -> None:
    with pytest.warns(UserWarning, match="float32: .* rounded away"):
        recorded(episodes=1).dataset(weight=1e-12)


def test_recording_wants_costs_and_an_episode() -> None:
    with pytest.raises(ConfigError, match="RecordComputeStatistics"):
        record_episodes(cartpole(), lambda observation: 0, episodes=1)
    with pytest.raises(ConfigError, match="episodes=0"):
        record_episodes(cartpole(ComputeMeter()), lambda observation: 0, episodes=0)


def test_spaces_that_d3rlpy_lacks_are_refused() -> None:
    env = gym.wrappers.TransformAction(cartpole(), lambda pair: pair[0], gym.spaces.MultiDiscrete([2, 2]))
    with pytest.raises(ConfigError, match="MultiDiscrete"):
        record_episodes(RecordComputeStatistics(env, ComputeMeter()), lambda observation: (0, 0), episodes=1)


# ---- learning and acting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_learning_is_what_torch_counts_and_weights_are_those_of_an_unmetered_run(case: str) -> None:
    meter = ComputeMeter()
    algo, data = build(case)
    d3rlpy.seed(1)
    fit(metered(algo, meter), data)
    plain, data = build(case)
    d3rlpy.seed(1)
    assert meter.totals["learn"] == counted_by_torch(plain, lambda: fit(plain, data)) > 0
    assert meter.totals["act"] == 0
    assert all(torch.equal(a, b) for a, b in zip(weights(algo), weights(plain), strict=True))


def test_an_update_of_dqn_by_hand() -> None:
    meter = ComputeMeter()
    algo, data = build("dqn")
    metered(algo, meter).update(data.sample_transition_batch(BATCH))
    # Forward of the network on the batch, and of its target, twice (to choose, and to value): 3·16·224; backward to
    # the weights: 16·224, and to the inputs of all layers but the first: 16·2·(8·8 + 8·2).
    assert meter.totals["learn"] == BATCH * (4 * CARTPOLE + 160)


def test_a_metered_online_run_with_a_penalty_of_0_is_the_unwrapped_run() -> None:
    meter = ComputeMeter()
    algo, _ = build("dqn")
    plain, _ = build("dqn")
    d3rlpy.seed(1)
    fit_online(metered(algo, meter), cartpole(meter, weight=0.0))
    d3rlpy.seed(1)
    counted = counted_by_torch(plain, lambda: fit_online(plain, cartpole()))
    assert all(torch.equal(a, b) for a, b in zip(weights(algo), weights(plain), strict=True))
    # The explorer asks for the greedy action at every step, also where it then takes another one.
    assert dict(meter.totals.by_name) == {"q_funcs": 60 * CARTPOLE}
    assert meter.totals["learn"] == counted


def test_evaluation_is_acting_and_its_returns_are_in_info() -> None:
    meter = ComputeMeter()
    algo, data = build("td3")
    reports: list[dict[str, Any]] = []

    class Keeping(gym.Wrapper):
        def step(self, action: Any) -> Any:
            transition = super().step(action)
            reports.extend([transition[-1]["compute"]] if "compute" in transition[-1] else [])
            return transition

    env = Keeping(RecordComputeStatistics(ComputePenaltyReward(pendulum(), 0.01, meter=meter), meter))
    _, metrics = fit(metered(algo, meter), data, evaluators={"environment": EnvironmentEvaluator(env, n_trials=2)})[0]
    assert meter.totals["act"] == 2 * EPISODE * PENDULUM == 2 * EPISODE * flops_per_action(algo)
    # 20 steps of 192 FLOPs at 0.01 a FLOP: 38.4.
    for report in reports:
        assert report["return_raw"] - report["return_penalised"] == pytest.approx(38.4)
    assert metrics["environment"] == pytest.approx(np.mean([report["return_penalised"] for report in reports]))


def test_an_action_costs_what_the_networks_that_act_cost() -> None:
    assert flops_per_action(build("cql")[0]) == GAUSSIAN
    assert flops_per_action(build("iql")[0]) == PENDULUM  # its deviation is a parameter, and no head
    meter = ComputeMeter()
    algo, _ = build("bcq")
    metered(algo, meter).predict(np.zeros((1, 3), np.float32))
    # 100 candidates of its generator, its perturbation and its Q-functions.
    assert meter.take().executed == flops_per_action(algo) > 100 * PENDULUM
    assert {"policy", "q_funcs"} < set(meter.totals.by_name)


def test_sample_action_is_acting_and_predict_value_is_not() -> None:
    meter = ComputeMeter()
    algo, _ = build("cql")
    metered(algo, meter).sample_action(np.zeros((1, 3), np.float32))
    assert (meter.totals["act"], meter.totals["learn"]) == (GAUSSIAN, 0)
    algo.predict_value(np.zeros((1, 3), np.float32), np.zeros((1, 1), np.float32))
    # Two Q-functions of 3 + 1 inputs: 2·2·(4·8 + 8·8 + 8·1).
    assert (meter.totals["act"], meter.totals["learn"]) == (GAUSSIAN, 2 * 208)


# ---- nothing is left behind -----------------------------------------------------------------------------------------


def test_unmeter_leaves_no_trace() -> None:
    algo, _ = build("cql")
    kind, before = type(algo), dict(vars(algo))
    assert unmeter(metered(algo, ComputeMeter())) is algo
    assert type(algo) is kind
    assert vars(algo) == before
    networks = algo.impl.modules.get_torch_modules().values()
    assert all(not part._forward_hooks for network in networks for part in network.modules())


def test_save_and_load_work_and_the_loaded_algorithm_is_not_metered(tmp_path: Path) -> None:
    meter = ComputeMeter()
    algo, _ = build("dqn")
    metered(algo, meter).save(str(tmp_path / "algo.d3"))
    loaded = d3rlpy.load_learnable(str(tmp_path / "algo.d3"))
    for twin in (loaded, copy.deepcopy(algo)):
        assert type(twin) is type(loaded)
        twin.predict(np.zeros((1, 4), np.float32))
        assert meter.totals["act"] == 0
    assert all(torch.equal(a, b) for a, b in zip(weights(algo), weights(loaded), strict=True))


def test_metering_twice_unmetering_nothing_and_building_anew_raise() -> None:
    algo, data = build("dqn")
    with pytest.raises(MeterError, match="not metered"):
        unmeter(algo)
    metered(algo, "test.d3rlpy")
    assert algo.meter is get_meter("test.d3rlpy")
    with pytest.raises(MeterError, match="metered already"):
        metered(algo)
    with pytest.raises(MeterError, match=r"other networks.*unmeter"):
        algo.build_with_dataset(data)
    unmeter(algo).build_with_dataset(data)


def test_what_cannot_be_metered_is_named() -> None:
    with pytest.raises(ConfigError, match=r"got a object; expected an algorithm of d3rlpy"):
        metered(object())
    for algo in (CASES["dqn"](), DiscreteRandomPolicyConfig().create()):
        with pytest.raises(ConfigError, match=r"has no networks; .*build_with_dataset"):
            metered(algo)


# ---- budgets, sub-policies, and the master --------------------------------------------------------------------------


def test_budget_is_set_between_evaluations() -> None:
    meter = ComputeMeter()
    algo, data = build("td3")
    metered(algo, meter)
    limit = ComputeLimit(gym.make("Pendulum-v1"), 10**6, on_exhausted="truncate", meter=meter)
    env = RecordComputeStatistics(limit, meter)
    evaluate = EnvironmentEvaluator(env, n_trials=1)
    for steps in (3, 5):
        env.get_wrapper_attr("set_budget")(steps * PENDULUM)
        before = meter.totals["act"]
        evaluate(algo, data)
        assert meter.totals["act"] - before == steps * PENDULUM


def test_algorithm_as_sub_policy_acts_as_it_predicts() -> None:
    algo, _ = build("cql")
    policy = as_sub_policy(algo, "cql")
    observation = np.array([1.0, 0.0, 0.5], np.float32)
    assert (policy.name, policy.flops) == ("cql", GAUSSIAN)
    np.testing.assert_array_equal(policy(observation), algo.predict(observation[None])[0])
    sampled = as_sub_policy(algo, deterministic=False)
    assert sampled.name == "CQL"
    assert len({float(sampled(observation)[0]) for _ in range(5)}) == 5


def options(meter: ComputeMeter) -> gym.Env:
    d3rlpy.seed(0)
    wide = VectorEncoderFactory([16, 16])
    policies = []
    for name, encoder in (("small", ENCODER), ("large", wide)):
        algo = SACConfig(actor_encoder_factory=encoder, critic_encoder_factory=encoder).create()
        algo.build_with_env(pendulum())
        policies.append(as_sub_policy(algo, name))
    return RecordComputeStatistics(SubPolicyAction(pendulum(), policies, hold=3, weight=0.1, meter=meter), meter)


def test_dqn_is_the_master_of_sub_policies_online() -> None:
    meter = ComputeMeter()
    env = options(meter)
    master = CASES["dqn"]()
    master.build_with_env(env)
    before = weights(master)
    fit_online(metered(master, meter), env, 40)
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(master), strict=True))
    # O = 3, K = 2: 2·(3·8 + 8·8 + 8·2) = 208 a decision; the rest are the sub-policies' primitive steps.
    spent = meter.totals.by_name
    assert set(spent) == {"small", "large", "q_funcs"}
    assert spent["q_funcs"] == 40 * 208
    episodes, rest = divmod(40, -(-EPISODE // 3))  # 7 decisions an episode: 6 of 3 steps and one of 2
    large = 2 * (3 * 16 + 16 * 16 + 2 * 16 * 1)
    assert spent["small"] // GAUSSIAN + spent["large"] // large == episodes * EPISODE + 3 * rest


def test_discrete_cql_learns_offline_from_recorded_choices() -> None:
    meter = ComputeMeter()
    rng = np.random.default_rng(0)
    chooser = FunctionPolicy(lambda observation: rng.integers(2), flops=0, name="random")
    episodes = record_episodes(options(meter), chooser, episodes=3)
    assert episodes.action_size == 2
    assert set(episodes.actions.tolist()) == {0, 1}
    assert episodes.costs.sum() == sum(meter.totals.by_name.values())
    data = episodes.dataset()
    master = CASES["discrete cql"]()
    master.build_with_dataset(data)
    before = weights(master)
    fit(metered(master, meter), data)
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(master), strict=True))
    assert meter.totals["learn"] > 0
