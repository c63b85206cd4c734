"""DQN: targets and losses against loops, clocks against Stable-Baselines3's, options against their formulas."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agents import DQN
from agents.dqn import DuelingQNetwork, QNetwork, chosen, weighted_huber
from agents.replay.buffers import Batch
from budget_wrappers.errors import ConfigError
from tests.contracts.agent import Countdown
from tests.gymnasium_versions import sync

GAMMA = 0.9


def batch_of(rows: int = 6) -> Batch:
    """Return a batch for ``Countdown``: 3 actions, 3 numbers; row 0 terminates."""
    generator = torch.Generator().manual_seed(0)
    discount = torch.full((rows,), GAMMA)
    discount[0] = 0.0
    return Batch(
        torch.randn(rows, 3, generator=generator),
        torch.randint(3, (rows,), generator=generator),
        torch.randn(rows, generator=generator),
        discount,
        torch.randn(rows, 3, generator=generator),
        torch.rand(rows, generator=generator),
        torch.arange(rows),
    )


def make(env: Any = None, **settings: Any) -> DQN:
    """Return a small agent whose networks differ from each other."""
    small = {"net_arch": (8, 8), "batch_size": 4, "learning_starts": 4, "buffer_size": 100, "train_freq": 1}
    agent = DQN(env or Countdown(discrete=True), **{**small, **settings})
    with torch.no_grad():
        for parameter in agent.target_network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return agent


def two_heads(size: int, actions: int, config: Any) -> nn.Module:
    """Return a network of K = 2 heads."""
    return QNetwork(size, actions, config.net_arch, config.activation, heads=2)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("q_network", [None, two_heads])
def test_target_matches_a_loop(double: bool, q_network: Any) -> None:
    agent, batch = make(double=double, q_network=q_network), batch_of()
    target = agent.target(batch)
    with torch.no_grad():
        online, frozen = (net(batch.next_observation) for net in (agent.q_network, agent.target_network))
    for head in range(len(online)):
        for row in range(6):
            judge = online if double else frozen
            best = int(judge[head, row].argmax())
            expected = batch.reward[row] + batch.discount[row] * frozen[head, row, best]
            assert target[head, row].item() == pytest.approx(expected.item(), abs=1e-6)


def test_loss_matches_a_loop() -> None:
    agent, batch = make(q_network=two_heads), batch_of()
    loss, error = agent.loss(batch)
    values, target, total = agent.q_network(batch.observation), agent.target(batch), 0.0
    for head in range(2):
        for row in range(6):
            difference = (values[head, row, batch.action[row]] - target[head, row]).item()
            assert error[head, row].item() == pytest.approx(difference, abs=1e-6)
            huber = 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5
            total += batch.weight[row].item() * huber / 6
    assert loss.item() == pytest.approx(total, abs=1e-6)


def test_huber_is_quadratic_below_one_and_linear_above() -> None:
    error = torch.tensor([[0.5, -3.0]])
    # ½·0.25 = 0.125 with weight 1; 3 − ½ = 2.5 with weight 0.2; mean of 0.125 and 0.5.
    assert weighted_huber(error, torch.tensor([1.0, 0.2])).sum().item() == pytest.approx(0.3125)


def test_chosen_picks_each_rows_action_in_every_head() -> None:
    values = torch.arange(12.0).view(2, 2, 3)
    assert chosen(values, torch.tensor([2, 0])).tolist() == [[2.0, 3.0], [8.0, 9.0]]


def test_target_gives_no_gradient() -> None:
    agent, batch = make(double=True), batch_of()
    assert not agent.target(batch).requires_grad
    agent.loss(batch)[0].backward()
    assert all(parameter.grad is None for parameter in agent.target_network.parameters())


# ---- networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (5,), (5, 7)])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_dueling_values_are_value_plus_centred_advantage(hidden: tuple[int, ...], activation: Any) -> None:
    torch.manual_seed(0)
    net, x = DuelingQNetwork(3, 4, hidden, activation, heads=2), torch.randn(6, 3)
    f = {"relu": torch.relu, "tanh": torch.tanh}[activation]

    def run(layers: list[nn.Linear], y: Tensor) -> Tensor:
        for layer in layers[:-1]:
            y = f(layer(y))
        return layers[-1](y)

    features = f(run(net.trunk[0].linears, x)) if len(hidden) > 1 else x
    value = run(net.value.linears, features)
    advantage = run(net.advantage.linears, features).view(6, 2, 4)
    expected = value.unsqueeze(2) + advantage - advantage.mean(2, keepdim=True)
    torch.testing.assert_close(net(x), expected.transpose(0, 1))


def test_last_head_acts() -> None:
    agent = make(q_network=two_heads)
    observation = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    with torch.no_grad():
        last = agent.q_network(torch.from_numpy(observation))[1]
    assert agent.act(observation, deterministic=True).tolist() == last.argmax(1).tolist()


def test_dueling_is_charged_for_both_streams() -> None:
    plain, dueling = (make(dueling=dueling) for dueling in (False, True))
    assert plain.flops_per_action == 2 * (3 * 8 + 8 * 8 + 8 * 3)
    # Trunk 3×8, then a hidden layer of 8 in each stream, then 1 value and 3 advantages.
    assert dueling.flops_per_action == 2 * (3 * 8 + 2 * 8 * 8 + 8 * 1 + 8 * 3)
    for agent in (plain, dueling):
        agent.predict(np.zeros((5, 3)))
        assert agent.meter.totals["act"] == 5 * agent.flops_per_action


# ---- clocks ---------------------------------------------------------------------------------------------------------


def test_exploration_falls_over_a_fraction_of_the_steps_asked_for() -> None:
    agent = make(exploration_fraction=0.5, exploration_initial_eps=0.9, exploration_final_eps=0.1)
    agent.total_timesteps = 100
    rates = []
    for agent.num_timesteps in (0, 25, 50, 100):
        rates.append(agent.exploration_rate)
    assert rates == pytest.approx([0.9, 0.5, 0.1, 0.1])


def test_random_actions_have_the_share_of_epsilon_and_cost_nothing() -> None:
    agent = make(exploration_fraction=0.0, exploration_final_eps=0.25)
    observation = np.ones((8000, 3), np.float32)
    before = agent.meter.totals["act"]
    greedy = agent.act(observation[:1], deterministic=True)[0]
    action = agent.act(observation, deterministic=False)
    # ε·⅔ = ⅙ are not the greedy one: 1333 of 8000, with a standard deviation of √(8000·⅙·⅚) = 33.
    assert abs((action != greedy).sum() - 8000 / 6) < 4 * 33
    rows = (agent.meter.totals["act"] - before) / agent.flops_per_action
    assert abs(rows - 1 - 6000) < 4 * 39


@pytest.mark.parametrize(
    ("envs", "interval", "expected"),
    [(1, 5, [5, 10, 15, 20]), (3, 6, [2, 4, 6]), (3, 2, [1, 2, 3, 4, 5, 6, 7])],
)
def test_target_follows_every_interval_of_environment_steps(envs: int, interval: int, expected: list[int]) -> None:
    # Stable-Baselines3: every max(interval // n_envs, 1) rounds, counted from the first, whether or not it learns yet.
    one = Countdown(discrete=True)
    env = one if envs == 1 else sync([lambda: one] * envs, "SameStep")
    agent = make(env, target_update_interval=interval, learning_starts=1000)
    moved = []
    agent.average.update = lambda: moved.append(agent.num_rounds)
    agent.learn(20)
    assert moved == expected


@pytest.mark.parametrize(
    ("train_freq", "gradient_steps", "envs", "expected"),
    [
        # 40 steps, updates after rounds beyond step 10.
        (4, 1, 1, 8),  # rounds 12, 16, …, 40
        (4, 3, 1, 24),
        (4, -1, 1, 32),  # as many as steps since the last
        (2, -1, 2, 32),  # rounds of 2 steps: after steps 12, 16, …, 40, 4 each
    ],
)
def test_updates_are_as_many_as_in_stable_baselines3(
    train_freq: int, gradient_steps: int, envs: int, expected: int
) -> None:
    length = gym.wrappers.TimeLimit(Countdown(discrete=True), 1000)
    env = length if envs == 1 else sync([lambda: Countdown(discrete=True)] * envs, "SameStep")
    agent = make(env, train_freq=train_freq, gradient_steps=gradient_steps, learning_starts=10).learn(40)
    assert agent.num_updates == expected


def test_gradient_is_clipped_to_its_norm() -> None:
    # Adam's first step has the same length whatever the gradient's; its first moment is (1 − β₁)·gradient.
    agent, batch = make(max_grad_norm=1e-3), batch_of()
    agent.update(batch)
    moments = [agent.optimizer.state[parameter]["exp_avg"] for parameter in agent.q_network.parameters()]
    norm = torch.sqrt(sum(moment.square().sum() for moment in moments)) / (1 - 0.9)
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("tau", 0.0, r"a step in \(0, 1\]"),
        ("target_update_interval", 0, "at least 1"),
        ("exploration_fraction", 1.5, r"a share in \[0, 1\]"),
        ("exploration_initial_eps", -0.1, r"a share in \[0, 1\]"),
        ("exploration_final_eps", 2.0, r"a share in \[0, 1\]"),
        ("max_grad_norm", 0.0, "a norm above 0"),
        ("priority_alpha", -1.0, r"an exponent in \[0, 1\]"),
        ("priority_beta", 1.1, r"an exponent in \[0, 1\]"),
    ],
)
def test_value_out_of_bounds_is_refused(name: str, value: float, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value}: expected {expected}"):
        make(**{name: value})


def test_update_is_stable_baselines3s_matches_oracle() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    settings = {"learning_rate": 1e-2, "batch_size": 6, "max_grad_norm": 0.3, "gamma": GAMMA, "buffer_size": 100}
    env = gym.wrappers.TransformAction(
        Countdown(discrete=True), lambda action: action + 5, gym.spaces.Discrete(3)
    )  # the oracle refuses actions that do not start at 0
    theirs = sb3.DQN("MlpPolicy", env, policy_kwargs={"net_arch": [8, 8]}, device="cpu", **settings)
    ours = DQN(env, net_arch=(8, 8), **settings)
    for own, other in ((ours.q_network, theirs.q_net), (ours.target_network, theirs.q_net_target)):
        with torch.no_grad():
            for target, source in zip(own.parameters(), other.parameters(), strict=True):
                target.copy_(source)
    batch = batch_of()._replace(weight=torch.ones(6))
    columns = {
        "observations": batch.observation,
        "actions": batch.action.unsqueeze(1),
        "next_observations": batch.next_observation,
        "dones": (batch.discount == 0).float().unsqueeze(1),
        "rewards": batch.reward.unsqueeze(1),
    }
    theirs.replay_buffer.sample = lambda *arguments, **settings: ReplayBufferSamples(**columns)
    theirs.set_logger(Logger(None, []))
    for _ in range(3):
        theirs.train(gradient_steps=1, batch_size=6)
        ours.update(batch)
    for own, other in zip(ours.q_network.parameters(), theirs.q_net.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-5)
