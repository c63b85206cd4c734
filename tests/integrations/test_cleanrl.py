"""Loops in CleanRL's style, of plain torch modules, are metered to the digit and train as without."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from budget_wrappers.errors import ConfigError
from budget_wrappers.integrations.cleanrl import as_sub_policy, learns
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction

EPISODE, STEPS, START, BATCH = 20, 60, 20, 8


class QNetwork(nn.Module):
    """As in CleanRL's DQN."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, actions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


class SquashedActor(nn.Module):
    """As in CleanRL's SAC."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc_mean, self.fc_logstd = nn.Linear(3, 8), nn.Linear(8, 1), nn.Linear(8, 1)
        self.register_buffer("action_scale", torch.tensor([2.0]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.fc1(x))
        return self.fc_mean(x), self.fc_logstd(x)

    def get_action(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, log_std = self(x)
        normal = torch.distributions.Normal(mean, log_std.exp())
        sample = normal.rsample()
        return torch.tanh(sample) * self.action_scale, normal.log_prob(sample), torch.tanh(mean) * self.action_scale


class ScaledActor(nn.Module):
    """As in CleanRL's DDPG and TD3."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc_mu = nn.Linear(3, 8), nn.Linear(8, 1)
        self.register_buffer("action_scale", torch.tensor([2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.fc_mu(torch.relu(self.fc1(x)))) * self.action_scale


class DiscreteAgent(nn.Module):
    """As in CleanRL's PPO."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.actor = nn.Linear(4, 1), nn.Linear(4, 2)

    def get_action_and_value(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.distributions.Categorical(logits=self.actor(x)).sample(), self.critic(x)


class ContinuousAgent(nn.Module):
    """As in CleanRL's PPO for continuous actions."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.actor_mean = nn.Linear(3, 1), nn.Linear(3, 1)
        self.actor_logstd = nn.Parameter(torch.zeros(1, 1))


def pendulum() -> gym.Env:
    return gym.make("Pendulum-v1", max_episode_steps=EPISODE)


def cartpole() -> gym.Env:
    return gym.make("CartPole-v1", max_episode_steps=EPISODE)


def train_dqn(env: gym.Env, meter: ComputeMeter | None = None, options: dict[str, Any] | None = None) -> Any:
    """Run a DQN loop that acts with gradients, as CleanRL's does, metered where there is a meter; return its end."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    q_network = QNetwork(env.observation_space.shape[0], int(env.action_space.n))
    target = QNetwork(env.observation_space.shape[0], int(env.action_space.n))
    target.load_state_dict(q_network.state_dict())
    optimizer = torch.optim.Adam(q_network.parameters(), lr=1e-3)

    def update(obs: Any, actions: Any, rewards: Any, next_obs: Any, terminated: Any) -> None:
        with torch.no_grad():
            wanted = rewards + 0.99 * target(next_obs).max(1).values * (1 - terminated)
        loss = nn.functional.mse_loss(wanted, q_network(obs).gather(1, actions[:, None]).squeeze(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    if meter is not None:
        meter.watch(q_network, "q_network", static=True)
        update = learns(meter, key=lambda obs, *_: len(obs))(update)
    buffer, infos = [], []
    obs, _ = env.reset(seed=0, options=options)
    for step in range(STEPS):
        if step < START:
            action = int(rng.integers(env.action_space.n))
        elif meter is None:
            action = int(q_network(torch.Tensor(obs)[None]).argmax())
        else:
            with meter.phase("act"):
                action = int(q_network(torch.Tensor(obs)[None]).argmax())
        next_obs, reward, terminated, truncated, info = env.step(action)
        buffer.append((np.float32(obs), action, np.float32(reward), np.float32(next_obs), np.float32(terminated)))
        obs = next_obs
        if terminated or truncated:
            infos.append(info)
            obs, _ = env.reset()
        if step >= START:
            rows = [buffer[i] for i in rng.integers(len(buffer), size=BATCH)]
            update(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))
    return q_network, buffer, infos


def test_metered_loop_trains_to_the_same_numbers_and_is_counted_by_hand() -> None:
    meter = ComputeMeter()
    env = RecordComputeStatistics(ComputePenaltyReward(cartpole(), 0.0, meter=meter), meter)
    metered, buffer, infos = train_dqn(env, meter)
    plain, plain_buffer, _ = train_dqn(cartpole())
    assert all(torch.equal(a, b) for a, b in zip(metered.parameters(), plain.parameters(), strict=True))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(buffer, plain_buffer, strict=True))
    # CartPole: O = 4, A = 2. One action: 2·(4·8 + 8·2) = 96; the first 20 of 60 steps are random.
    act = 2 * (4 * 8 + 8 * 2)
    assert dict(meter.totals.by_name) == {"q_network": (STEPS - START) * act}
    # A batch of 8: the target's forward, a forward, and a backward pass of twice that but for the observations.
    update = BATCH * (act + act + 2 * act - 2 * 4 * 8)
    assert meter.totals["learn"] == (STEPS - START) * update
    assert all(info["compute"]["return_raw"] == info["compute"]["return_penalised"] for info in infos)


def test_raw_and_penalised_return_are_both_in_info() -> None:
    meter = ComputeMeter()
    env = RecordComputeStatistics(ComputePenaltyReward(cartpole(), 0.001, meter=meter), meter)
    accounts = [info["compute"] for info in train_dqn(env, meter)[2]]
    for account in accounts:
        # A thousandth of a reward a FLOP, whatever share of the episode was random.
        assert account["return_raw"] - account["return_penalised"] == pytest.approx(0.001 * account["flops"])
    assert accounts[-1]["flops"] == 96 * accounts[-1]["steps"]


def test_budget_is_set_by_the_loop_itself() -> None:
    meter = ComputeMeter()
    limit = ComputeLimit(cartpole(), 10**6, on_exhausted="truncate", meter=meter)
    _, _, infos = train_dqn(RecordComputeStatistics(limit, meter), meter, {"budget": 3 * 96})
    # Random actions are free; an episode of the network's own ends after 3 of its actions.
    assert infos[-1]["compute"]["limit"] == 288
    assert infos[-1]["compute"]["steps"] == 3
    limit.set_budget(960)
    limit.reset()
    assert limit.remaining == 960


def test_plain_dqn_is_the_master_of_sub_policies() -> None:
    meter = ComputeMeter()
    torch.manual_seed(1)
    observation = np.zeros(3, np.float32)
    actor = as_sub_policy(SquashedActor(), "actor", example=observation)
    rest = FunctionPolicy(lambda _: np.zeros(1, np.float32), 10, "rest")
    env = RecordComputeStatistics(SubPolicyAction(pendulum(), [actor, rest], 3, weight=0.1, meter=meter), meter)
    master, _, infos = train_dqn(env, meter)
    torch.manual_seed(0)
    assert not torch.equal(QNetwork(3, 2).network[0].weight, master.network[0].weight)
    spent = meter.totals.by_name
    # O = 3, K = 2: 2·(3·8 + 8·2) = 80 a decision. 60 decisions: 7 an episode, 6 of 3 steps and one of 2.
    assert spent["q_network"] == (STEPS - START) * 80
    assert spent["actor"] // actor.flops + spent["rest"] // 10 == 60 // 7 * EPISODE + 3 * (60 % 7)
    assert {"actor", "rest"} <= set(infos[0]["compute"]["share_flops"])


# ---- as sub-policies ------------------------------------------------------------------------------------------------

AGENTS: dict[str, tuple[type[nn.Module], gym.Env, int, bool]] = {
    # The module, where it acts, FLOPs of one action by hand, whether it samples when it may.
    "sac": (SquashedActor, pendulum(), 2 * (3 * 8 + 2 * 8 * 1), True),
    "td3": (ScaledActor, pendulum(), 2 * (3 * 8 + 8 * 1), False),
    "dqn": (lambda: QNetwork(4, 2), cartpole(), 2 * (4 * 8 + 8 * 2), False),
    "ppo": (DiscreteAgent, cartpole(), 2 * 4 * 2, True),
    "ppo of continuous actions": (ContinuousAgent, pendulum(), 2 * 3 * 1, True),
}


@pytest.mark.parametrize("case", AGENTS)
def test_each_script_gives_a_sub_policy(case: str) -> None:
    make, env, flops, samples = AGENTS[case]
    torch.manual_seed(0)
    agent, observation = make(), env.observation_space.sample()
    still = as_sub_policy(agent, case, example=observation)
    assert (still.name, still.flops) == (case, flops)
    assert np.shape(still(observation)) == env.action_space.shape
    assert len({np.asarray(still(observation)).item() for _ in range(20)}) == 1
    moving = as_sub_policy(agent, deterministic=False, example=observation)
    assert (len({np.asarray(moving(observation)).item() for _ in range(60)}) > 1) is samples
    assert moving.name == type(agent).__name__


def test_sac_acts_by_its_squashed_mean() -> None:
    actor, observation = SquashedActor(), np.ones(3, np.float32)
    expected = 2.0 * torch.tanh(actor(torch.ones(1, 3))[0])[0].detach().numpy()
    np.testing.assert_array_equal(as_sub_policy(actor, example=observation)(observation), expected)


def test_module_of_another_style_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Linear has no parts: .*ModulePolicy\(module, act"):
        as_sub_policy(nn.Linear(3, 1), example=np.zeros(3))
    with pytest.raises(ConfigError, match="int has no parts"):
        as_sub_policy(3, example=np.zeros(3))


class SharedTrunk(nn.Module):
    """As in CleanRL's PPO for Atari games; its trunk is as wide as the observation, so that nothing fails by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.actor, self.critic = nn.Linear(4, 2), nn.Linear(4, 1)


class SharedTrunkOfMeans(nn.Module):
    """Likewise, of continuous actions."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.actor_mean, self.critic = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 1)
        self.actor_logstd = nn.Parameter(torch.zeros(1, 2))


class DiscreteSAC(nn.Module):
    """As in CleanRL's SAC for Atari games: the third result is no action."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_logits = nn.Linear(4, 2)

    def get_action(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        policy = torch.distributions.Categorical(logits=self.fc_logits(x))
        return policy.sample(), policy.logits, policy.probs


class C51(nn.Module):
    """As in CleanRL's C51: values are distributions, and two results come back."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(4, 6)

    def get_action(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.network(x).view(len(x), 2, 3).softmax(2)
        return values[..., 0].argmax(1), values


class Rainbow(nn.Module):
    """As in CleanRL's Rainbow: heads behind the network."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.value_head, self.advantage_head = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.network(x)
        return (self.value_head(h)[:, None] + self.advantage_head(h).view(-1, 2, 3)).softmax(2)


@pytest.mark.parametrize("script", [SharedTrunk, SharedTrunkOfMeans, DiscreteSAC, C51, Rainbow])
def test_scripts_that_share_an_attribute_with_a_known_one_are_refused_with_the_remedy(script: type[nn.Module]) -> None:
    with pytest.raises(ConfigError, match=rf"{script.__name__} has .*shared trunk by act="):
        as_sub_policy(script(), example=np.zeros(4, np.float32))


# ---- updates --------------------------------------------------------------------------------------------------------


def test_update_without_a_key_is_counted_each_time() -> None:
    meter, net = ComputeMeter(), nn.Linear(4, 2)

    @learns(meter)
    def update(rows: int) -> int:
        """Return what it was given."""
        net(torch.zeros(rows, 4)).sum().backward()
        return rows

    assert [update(3), update(rows=5)] == [3, 5]
    # A row: 2·4·2 forward, and as much for the gradient of the weights.
    assert meter.totals["learn"] == 8 * 32
    assert (update.__name__, update.__doc__) == ("update", "Return what it was given.")


def test_updates_with_equal_keys_are_counted_apart() -> None:
    meter, net = ComputeMeter(), nn.Linear(4, 2)
    learns(meter, key=lambda: 0)(lambda: net(torch.zeros(1, 4)))()
    learns(meter, key=lambda: 0)(lambda: net(torch.zeros(3, 4)))()
    assert meter.totals["learn"] == 4 * 16
