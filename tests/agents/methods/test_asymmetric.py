"""Asymmetric sub-policies: costs are computed, accounts add up, clocks run on environment steps, resuming is exact."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.dqn import DQN
from agents.loop.callbacks import Callback
from agents.loop.evaluate import evaluate_policy
from agents.methods.asymmetric import Asymmetric, AsymmetricConfig
from agents.runs.monitors import Checkpoint, Evaluate
from agents.sac import SAC
from budget_wrappers.errors import ConfigError, NonFiniteError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction

SETTINGS: dict[str, Any] = {
    "small_net_arch": (4,),
    "net_arch": (8, 8),
    "hold": 5,
    "weight": 0.1,
    "batch_size": 8,
    "buffer_size": 500,
    "learning_starts": 20,
    "master_net_arch": (8,),
    "master_batch_size": 8,
    "master_buffer_size": 100,
    "master_learning_starts": 30,
    "master_target_update_interval": 15,
    "seed": 3,
}
# Pendulum: O = 3, A = 1. Actors have two heads: 2·(3·4 + 4·2·1), 2·(3·8 + 8·8 + 8·2·1); master: 2·(3·8 + 8·2).
SMALL, LARGE, MASTER = 40, 208, 80


class Counter(gym.Env):
    """Observations count the steps, rewards are 1; ends as it is told."""

    observation_space = gym.spaces.Box(-1e6, 1e6, (3,), np.float32)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, terminate: int | None = None, truncate: int | None = None, poison: int | None = None) -> None:
        self.terminate, self.truncate, self.poison = terminate, truncate, poison
        self.steps = 0

    def observe(self) -> np.ndarray:
        value = np.nan if self.steps == self.poison else self.steps
        return np.array([value, 0.0, 0.0], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> Any:
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observe(), 1.0, self.steps == self.terminate, self.steps == self.truncate, {}


def make(env: Any = None, **settings: Any) -> Asymmetric:
    env = gym.make("Pendulum-v1", max_episode_steps=23) if env is None else env
    return Asymmetric(env, **{**SETTINGS, **settings})


def always(agent: Asymmetric, option: int) -> Asymmetric:
    """Let the master pick one option, whatever it learns."""
    agent.master.act = lambda rows, deterministic: agent.master.values(rows).argmax(1) * 0 + option
    return agent


def weights(agent: Any) -> list[torch.Tensor]:
    return [tensor.clone() for module in agent.modules.values() for tensor in module.state_dict().values()]


class Episodes(Callback):
    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.seen.append(episode)


def test_flops_of_an_episode_are_those_of_its_steps_and_decisions() -> None:
    episodes = Episodes()
    make(master_learning_starts=0).learn(120, episodes)
    assert len(episodes.seen) >= 5
    for episode in episodes.seen:
        compute = episode["compute"]
        steps = {name: round(share * compute["steps"]) for name, share in compute["share_steps"].items()}
        assert sum(steps.values()) == episode["length"] == 23
        assert episode["decisions"] == 5  # 5 + 5 + 5 + 5 + 3
        from_master = compute["flops"] - steps["small"] * SMALL - steps["large"] * LARGE
        # ε-greedy: random choices run no network.
        assert from_master in [count * MASTER for count in range(6)]


@pytest.mark.parametrize(("option", "flops"), [(0, SMALL), (1, LARGE)])
def test_training_with_one_option_costs_its_steps_and_every_decision(option: int, flops: int) -> None:
    agent = always(make(master_learning_starts=0), option)
    agent.learn(46)  # two episodes of 23 steps, 5 decisions each
    name = ("small", "large")[option]
    assert dict(agent.meter.totals.by_name) == {name: 46 * flops, "actor": 10 * MASTER}
    assert agent.meter.totals["act"] == 46 * flops + 10 * MASTER


@pytest.mark.parametrize(("option", "flops"), [(0, SMALL), (1, LARGE)])
def test_evaluation_with_one_option_costs_the_same(option: int, flops: int) -> None:
    agent = always(make(), option)
    result = evaluate_policy(agent, gym.make("Pendulum-v1", max_episode_steps=23), episodes=2)
    assert result.flops == [23 * flops + 5 * MASTER] * 2


def test_evaluation_in_a_recorded_environment_reports_the_same_flops() -> None:
    agent = make()
    env = RecordComputeStatistics(gym.make("Pendulum-v1", max_episode_steps=23), agent.meter)
    result = evaluate_policy(agent, env, episodes=2)
    assert [report["flops"] for report in result.compute] == result.flops


def test_learning_is_every_part_s_updates() -> None:
    agent = make()
    agent.learn(46)
    # Updates after 20 steps, the master's after 30.
    assert [part.num_updates for part in agent.parts.values()] == [26, 26, 16]
    learned, costs = agent.meter.totals["learn"], {}
    for name, part in agent.parts.items():
        before = agent.meter.totals["learn"]
        part.train(1)
        costs[name] = agent.meter.totals["learn"] - before
    assert min(costs.values()) > 0
    assert learned == 26 * costs["small"] + 26 * costs["large"] + 16 * costs["master"]


# ---- what each part learns from -------------------------------------------------------------------------------------


def test_sub_policies_share_every_step_of_the_environment() -> None:
    agent = make(Counter(truncate=7))
    agent.learn(14)
    replay = agent.small.replay
    assert agent.large.replay is replay
    assert len(replay) == 14
    assert replay.observation[:14, 0].tolist() == [*range(7), *range(7)]
    assert replay.next_observation[:14, 0].tolist() == [*range(1, 8), *range(1, 8)]
    assert replay.reward[:14].tolist() == [1.0] * 14  # without the price of compute
    assert replay.action[:14].abs().max() <= 1.0


def test_separate_buffers_hold_each_policy_s_own_steps() -> None:
    agent = always(make(Counter(truncate=7), shared_buffer=False, master_learning_starts=0), 1)
    agent.learn(14)
    assert (len(agent.small.replay), len(agent.large.replay)) == (0, 14)


@pytest.mark.parametrize(("option", "cost"), [(0, 1.0), (1, LARGE / SMALL)])
def test_master_learns_from_the_sum_less_the_price_of_the_steps_really_taken(option: int, cost: float) -> None:
    agent = always(make(Counter(terminate=7), master_learning_starts=0), option)
    agent.learn(7)
    replay = agent.master.replay.replay
    # Options of 5 and 2 steps: Σr − 0.1·n·c.
    assert replay.reward[:2].tolist() == pytest.approx([5 - 0.5 * cost, 2 - 0.2 * cost])
    assert replay.observation[:2, 0].tolist() == [0.0, 5.0]
    assert replay.next_observation[:2, 0].tolist() == [5.0, 7.0]
    assert replay.terminated[:2].tolist() == [False, True]


BOOTSTRAPS = {
    "gamma_n": [0.9**5, 0.9**2],
    "gamma": [0.9, 0.9],
}


@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
@pytest.mark.parametrize("cut", [False, True])
def test_only_termination_cuts_the_master_s_bootstrap(bootstrap: str, cut: bool) -> None:
    agent = make(Counter(truncate=7), bootstrap=bootstrap, cut_at_time_limit=cut, gamma=0.9)
    agent.learn(7)
    batch = agent.master.replay.sample(50, torch.Generator().manual_seed(0))
    expected = np.array(BOOTSTRAPS[bootstrap]) * [1, not cut]
    np.testing.assert_allclose(batch.discount, expected[batch.index], rtol=1e-6)
    assert set(agent.small.replay.terminated[:7].tolist()) == ({False, True} if cut else {False})


def test_episode_shorter_than_an_option_is_one_option() -> None:
    episodes = Episodes()
    agent = make(Counter(terminate=3))
    agent.learn(6, episodes)
    assert [(episode["length"], episode["decisions"]) for episode in episodes.seen] == [(3, 1), (3, 1)]
    assert agent.master.replay.duration[:2].tolist() == [3.0, 3.0]


# ---- clocks ---------------------------------------------------------------------------------------------------------


def test_every_clock_runs_on_environment_steps() -> None:
    agent = make()
    copies = []
    agent.master.average.update = lambda: copies.append(agent.master.num_timesteps)
    agent.learn(46)
    assert agent.num_timesteps == agent.master.num_timesteps == agent.small.num_timesteps == 46
    assert copies == [15, 30, 45]
    # ε falls over a tenth of 46 steps to 0.02.
    assert agent.master.exploration_rate == pytest.approx(0.02)


def test_last_option_may_pass_the_end_but_no_further_one_begins() -> None:
    agent = make(Counter())
    agent.learn(11)
    assert agent.num_timesteps == 15


def test_updates_come_every_train_freq_steps() -> None:
    agent = make(Counter(), train_freq=4, gradient_steps=2, learning_starts=0)
    agent.learn(20)
    assert agent.small.num_updates == agent.large.num_updates == 10


# ---- acting ---------------------------------------------------------------------------------------------------------


def test_choice_lasts_for_hold_steps_when_the_state_is_handed_back() -> None:
    agent = make(hold=3)
    decided = []
    act = agent.master.act
    agent.master.act = lambda rows, deterministic: decided.append(len(rows)) or act(rows, deterministic)
    observation, state = np.zeros(3, np.float32), None
    for _ in range(7):
        _, state = agent.predict(observation, state)
    assert decided == [1, 1, 1]
    agent.predict(observation, state, episode_start=np.array([True]))
    agent.predict(observation)
    assert decided == [1] * 5


def test_batch_of_observations_acts_as_each_alone() -> None:
    agent = make()
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    actions, (option, left) = agent.predict(rows)
    for row, action, index in zip(rows, actions, option, strict=True):
        single, (own, _) = agent.predict(row)
        np.testing.assert_allclose(single, action, rtol=1e-5)
        assert own[0] == index
    assert left.tolist() == [4] * 6
    assert agent.action_space.contains(actions[0])


def test_third_party_evaluation_threads_the_state() -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    agent = always(make(), 1)
    env = monitor.Monitor(gym.make("Pendulum-v1", max_episode_steps=23))
    evaluation.evaluate_policy(agent, env, n_eval_episodes=2)
    assert agent.meter.totals["act"] == 2 * (23 * LARGE + 5 * MASTER)


def test_another_master_can_run_the_sub_policies() -> None:
    agent, meter = make(), ComputeMeter()
    options = SubPolicyAction(gym.make("Pendulum-v1", max_episode_steps=23), agent.sub_policies, 5, 0.1, meter)
    master = DQN(options, meter=meter, net_arch=(8,), learning_starts=2, batch_size=4, buffer_size=50)
    master.learn(10)
    assert meter.totals.by_name["small"] + meter.totals.by_name["large"] > 0


# ---- an agent like any other ----------------------------------------------------------------------------------------


def test_seed_decides_everything() -> None:
    first, again, other = make(), make(), make(seed=4)
    for agent in (first, again, other):
        agent.learn(46)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"shared_buffer": False}, {"master_prioritized": True, "master_dueling": True}]
)
def test_resumed_run_ends_with_the_same_weights(options: dict[str, Any], tmp_path: Path) -> None:
    whole, first = make(**options), make(**options)
    path = tmp_path / "checkpoint.safetensors"
    whole.learn(115, Evaluate(gym.make("Pendulum-v1", max_episode_steps=23), 40, episodes=1))
    # Saved at the first episode end after 40 steps, killed in the middle of the next episode.
    first.learn(115, [Checkpoint(path, 40), lambda agent: agent.num_timesteps < 60])
    second = Asymmetric.load(path, gym.make("Pendulum-v1", max_episode_steps=23))
    assert second.num_timesteps == 46
    second.learn(115 - 46)
    assert second.num_timesteps == whole.num_timesteps == 115
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert second.meter.totals == whole.meter.totals


def test_loads_without_an_environment_to_predict(tmp_path: Path) -> None:
    agent = make()
    agent.save(tmp_path / "agent")
    loaded = Asymmetric.load(tmp_path / "agent", None)
    observation = np.ones(3, np.float32)
    np.testing.assert_array_equal(loaded.predict(observation)[0], agent.predict(observation)[0])


def test_recorder_around_the_environment_moves_outside_of_the_options() -> None:
    meter = ComputeMeter()
    agent = make(RecordComputeStatistics(gym.make("Pendulum-v1", max_episode_steps=23), meter))
    assert agent.meter is meter
    agent.learn(23)
    assert agent.options.env.unwrapped is agent.env.unwrapped


def test_penalty_inside_is_refused() -> None:
    meter = ComputeMeter()
    with pytest.raises(WrapperOrderError):
        make(ComputePenaltyReward(gym.make("Pendulum-v1"), weight=0.1, meter=meter))


def test_vector_environment_is_refused() -> None:
    with pytest.raises(SpaceError, match="expected a single environment"):
        make(gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync"))


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'master_double'"):
        make(master_duble=True)


def test_observation_that_is_not_finite_is_not_stored() -> None:
    agent = make(Counter(poison=4))
    with pytest.raises(NonFiniteError, match="observation"):
        agent.learn(10)
    assert len(agent.small.replay) == 3
    assert len(agent.master.replay) == 0


def test_sub_policy_that_raises_leaves_an_agent_that_can_go_on() -> None:
    agent = make(Counter(truncate=7))
    act, calls = agent.small.act, []

    def failing(rows: np.ndarray, deterministic: bool) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return act(rows, deterministic)

    agent.small.act = agent.large.act = failing
    with pytest.raises(ZeroDivisionError):
        agent.learn(14)
    agent.small.act = agent.large.act = act
    agent.learn(14)
    # One step before the failure, two episodes after it: the step cut off is followed by nothing.
    assert len(agent.small.replay) == 15
    assert agent.small.replay.follower[0].item() == -1


# ---- baselines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "flops"), [("small", SMALL), ("large", LARGE)])
def test_baseline_is_plain_sac_of_that_size(size: Any, flops: int) -> None:
    config = AsymmetricConfig.of(SETTINGS)
    agent = SAC(gym.make("Pendulum-v1"), **config.sub_policy(size))
    assert agent.flops_per_action == flops
    assert agent.config.activation == "tanh"
    assert agent.config.batch_size == 8


def test_correlated_noise_moves_the_actions_of_both() -> None:
    agent = make(correlated_noise=0.5)
    agent.learn(20)
    assert agent.noise.value[0, 0] != 0
    agent = make(correlated_noise=0.5)
    agent.learn(23)  # to the end of the episode
    assert agent.noise.value[0, 0] == 0


def test_spec_defaults_are_the_published_ones() -> None:
    config = AsymmetricConfig()
    assert (config.hold, config.gamma, config.activation, config.batch_size) == (5, 0.99, "tanh", 256)
    assert (config.learning_rate, config.buffer_size, config.tau, config.ent_coef) == (3e-4, 1_000_000, 0.005, "auto")
    master = config.master()
    assert (master["learning_rate"], master["buffer_size"], master["batch_size"]) == (1e-3, 50_000, 32)
    assert (master["net_arch"], master["activation"], master["max_grad_norm"]) == ((32, 32), "tanh", 10.0)
    assert (master["exploration_fraction"], master["exploration_final_eps"]) == (0.1, 0.02)
    assert (master["double"], master["dueling"], master["prioritized"]) == (True, False, False)
    assert (master["target_update_interval"], master["train_freq"]) == (500, 1)
