"""CQL: the conservative term against sums and integrals, and that it is conservative where the data are silent."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from agents import CQL, DiscreteCQL
from agents.cql import conservative_gap, squashed_density
from agents.loop.offline import FixedReplay
from agents.nets.networks import Critic, GaussianActor
from agents.replay.buffers import Batch
from agents.replay.dataset import Transitions
from agents.sac import SAC
from budget_wrappers.errors import ConfigError, SpaceError
from tests.agents.data import random_transitions
from tests.contracts.agent import Countdown

SMALL: dict[str, Any] = {"net_arch": (8, 8), "batch_size": 16}


def batch_of(agent: Any, rows: int = 5) -> Batch:
    """Return a batch of random transitions."""
    replay = FixedReplay(random_transitions(agent, 40), discrete=agent.discrete)
    return replay.gather(torch.arange(rows))


class TwoExits(GaussianActor):
    """A policy of K = 2: the second sub-policy's mean is the first's plus one."""

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = super().forward(observation)
        return torch.cat([mean, mean + 1.0]), torch.cat([log_std, log_std])


def two_exits(agent_class: type = CQL, **settings: Any) -> Any:
    """Return an agent with two sub-policies and critics of two heads."""
    return agent_class(
        Countdown(),
        actor=lambda size, actions, config: TwoExits(size, actions, config.net_arch, config.activation),
        critic=lambda size, actions, config: Critic(size, actions, config.net_arch, config.activation, heads=2),
        **{**SMALL, **settings},
    )


# ---- the term -------------------------------------------------------------------------------------------------------


def test_gap_over_every_action_matches_a_loop() -> None:
    values = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    gap = conservative_gap(values, values[:, :, 1])
    for member in range(2):
        for head in range(3):
            rows = [
                math.log(sum(math.exp(value) for value in values[member, head, :, row].tolist()))
                - values[member, head, 1, row].item()
                for row in range(5)
            ]
            assert gap[member, head].item() == pytest.approx(np.mean(rows), abs=1e-5)
    assert (gap >= 0).all()


def test_importance_sampling_estimates_the_integral() -> None:
    # Q(a) = 2a on [-1, 1]: ∫ exp(2a) da = (e² − e⁻²)/2. Drawn from a triangle, half of them uniformly.
    generator = torch.Generator().manual_seed(0)
    uniform = 2 * torch.rand(200_000, generator=generator) - 1
    towards_one = 2 * torch.rand(200_000, generator=generator).sqrt() - 1
    action = torch.cat([uniform, towards_one]).unsqueeze(1)
    density = torch.cat([torch.full_like(uniform, 0.5), (towards_one + 1) / 2]).unsqueeze(1)
    gap = conservative_gap(2 * action, torch.zeros(1), density.log() + math.log(400_000))
    assert gap.item() == pytest.approx(math.log((math.e**2 - math.e**-2) / 2), abs=0.02)


def test_densities_are_those_of_the_actions_matches_oracle() -> None:
    agent = two_exits(action_samples=3)
    batch = batch_of(agent)
    with torch.no_grad():
        action, log_density = agent.proposals(*agent.policy_actions(batch))
        mean, log_std = agent.policy(torch.cat([batch.observation, batch.next_observation]))
    assert action.shape == (2, 9, 5, 2)
    assert log_density.shape == (2, 9, 5)
    for head in range(2):
        for sample in range(9):
            if sample >= 6:  # uniform on [-1, 1]²: density ¼
                expected = torch.full((5,), math.log(0.25))
            else:
                rows = slice(0, 5) if sample < 3 else slice(5, 10)
                base = Normal(mean[head, rows], log_std[head, rows].exp())
                squashed = TransformedDistribution(Independent(base, 1), [TanhTransform(cache_size=1)])
                # Away from ±1, where the oracle's inverse loses its digits.
                expected = squashed.log_prob(action[head, sample].clamp(-0.9999, 0.9999))
            torch.testing.assert_close(log_density[head, sample], expected + math.log(9), atol=2e-3, rtol=1e-4)


def test_density_at_a_given_action_matches_oracle() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std = (torch.randn(2, 50, 3, generator=generator) for _ in range(2))
    action = 1.98 * torch.rand(50, 3, generator=generator) - 0.99
    base = Normal(mean.double(), log_std.double().clamp(-20.0, 2.0).exp())
    oracle = TransformedDistribution(Independent(base, 1), [TanhTransform()])
    expected = oracle.log_prob(action.double().expand(2, -1, -1)).float()
    torch.testing.assert_close(squashed_density(mean, log_std, action), expected, rtol=1e-4, atol=1e-4)


def test_density_is_finite_at_the_bounds() -> None:
    action = torch.tensor([[1.0, -1.0]])
    assert squashed_density(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), action).isfinite().all()


def test_policy_imitates_the_data_first() -> None:
    agent = CQL(Countdown(), net_arch=(16,), batch_size=32, actor_learning_rate=1e-2, imitation_steps=200, ent_coef=0.0)
    action = np.full((50, 2), 0.5, np.float32)
    # Every action earns −1 here, the data's included: only imitation leads to it.
    agent.replay = FixedReplay(one_step_data(action, -np.ones(50)))
    agent.learn(200)
    np.testing.assert_allclose(agent.act(np.zeros((1, 3)), deterministic=True)[0], 0.5, atol=0.05)
    assert agent.update_kind() == "update"


def test_losses_match_a_loop_over_sampled_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = two_exits(action_samples=2, backup_entropy=True)
    batch, ent_coef = batch_of(agent), torch.tensor(0.3)
    drawn: list[Any] = []
    for name in ("policy_actions", "proposals"):
        original = getattr(agent, name)

        def remember(*arguments: Any, original: Any = original) -> Any:
            drawn.append(original(*arguments))
            return drawn[-1]

        monkeypatch.setattr(agent, name, remember)
    td_loss, gap = agent.critic_losses(batch, ent_coef)
    (own, log_prob), (action, log_density) = drawn
    expected_gap, expected_loss = torch.zeros(2, 2), 0.0
    with torch.no_grad():
        for head in range(2):
            # Sample 2 is the first drawn at s'.
            following = agent.target_critic(batch.next_observation, own[head, 2])[:, head].amin(0)
            target = batch.reward + batch.discount * (following - 0.3 * log_prob[head, 2])
            data = agent.critic(batch.observation, batch.action)[:, head]
            expected_loss += 0.5 * (data - target).square().mean(1).sum()
            terms = [
                (agent.critic(batch.observation, action[head, s])[:, head] - log_density[head, s]).exp()
                for s in range(6)
            ]
            expected_gap[:, head] = (sum(terms).log() - data).mean(1)
    torch.testing.assert_close(gap, expected_gap)
    torch.testing.assert_close(td_loss, expected_loss)


def test_target_counts_entropy_only_where_asked() -> None:
    plain, counting = (CQL(Countdown(), backup_entropy=backup, **SMALL) for backup in (False, True))
    batch = batch_of(plain)
    action, log_prob = torch.zeros(1, 5, 2), torch.ones(1, 5)
    targets = [agent.conservative_target(batch, action, log_prob, torch.tensor(0.5)) for agent in (plain, counting)]
    # Equal networks: the two differ by γ·(1 − terminated)·α·log π alone.
    torch.testing.assert_close(targets[0] - targets[1], 0.5 * batch.discount.unsqueeze(0))


def test_without_the_term_discrete_cql_is_dqn() -> None:
    agent = DiscreteCQL(Countdown(discrete=True), cql_alpha=0.0, **SMALL)
    batch = batch_of(agent)
    loss, error = agent.loss(batch)
    plain, plain_error = super(DiscreteCQL, agent).loss(batch)
    assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
    torch.testing.assert_close(error, plain_error)


# ---- what it does ---------------------------------------------------------------------------------------------------


def one_step_data(action: np.ndarray, reward: np.ndarray) -> Transitions:
    """Return one-step episodes at one and the same state."""
    count = len(action)
    state, ends = np.zeros((count, 3), np.float32), np.ones(count, bool)
    return Transitions(state, action, reward.astype(np.float32), state, ends, ~ends, reward)


def test_unseen_action_is_worth_less_than_any_seen_one() -> None:
    agent = DiscreteCQL(Countdown(discrete=True), net_arch=(32,), batch_size=32, learning_rate=1e-2, cql_alpha=0.5)
    rng = np.random.default_rng(0)
    action = rng.integers(2, size=200)
    agent.replay = FixedReplay(one_step_data(action, action.astype(float)), discrete=True)
    agent.learn(300)
    seen_0, seen_1, unseen = agent.values(np.zeros((1, 3), np.float32))[0]
    assert unseen < seen_0 < seen_1


def test_actions_off_the_data_are_worth_less() -> None:
    agent = CQL(Countdown(), net_arch=(32,), batch_size=32, learning_rate=1e-2, cql_alpha=1.0, action_samples=4)
    # The data's actions are near (0.5, 0.5) and all earn 1; nothing says what the others earn.
    action = np.random.default_rng(0).normal(0.5, 0.1, (200, 2)).clip(-1, 1).astype(np.float32)
    agent.replay = FixedReplay(one_step_data(action, np.ones(200)))
    agent.learn(300)
    state = torch.zeros(2, 3)
    on, off = agent.critic(state, torch.tensor([[0.5, 0.5], [-0.5, -0.5]])).amin(0)[0].tolist()
    assert off < on - 0.3


@pytest.mark.parametrize(("gap", "grows"), [(7.0, True), (3.0, False)])
def test_learned_weight_grows_while_the_gap_is_above_its_aim(gap: float, grows: bool) -> None:
    agent = CQL(Countdown(), cql_alpha="auto", cql_alpha_init=2.0, cql_target_gap=5.0, **SMALL)
    assert agent.log_cql_alpha.exp().item() == pytest.approx(2.0)
    agent.conservative_optimizer.descend(agent.conservative_loss(torch.full((2, 1), gap)))
    assert (agent.log_cql_alpha.exp().item() > 2.0) is grows


def test_fixed_weight_stays() -> None:
    agent = CQL(Countdown(), cql_alpha=0.7, **SMALL)
    agent.replay = FixedReplay(random_transitions(agent, 40))
    agent.learn(3)
    assert agent.log_cql_alpha.exp().item() == pytest.approx(0.7)
    assert "conservative" not in agent.optimizers


def test_two_sub_policies_learn_at_once() -> None:
    agent = two_exits(action_samples=2)
    agent.replay = FixedReplay(random_transitions(agent, 40))
    agent.learn(3)
    assert agent.metrics["conservative_gap"].isfinite()


def test_acting_is_sacs() -> None:
    agent = CQL(Countdown(), **SMALL)
    assert CQL.act is SAC.act
    assert agent.flops_per_action == SAC(Countdown(), **SMALL, buffer_size=10).flops_per_action


def test_wrong_kind_of_actions_is_refused_with_the_right_class() -> None:
    with pytest.raises(SpaceError, match=r"CQL got the action space Discrete.*expected a Box space.*DiscreteCQL"):
        CQL(Countdown(discrete=True))
    with pytest.raises(
        SpaceError, match=r"DiscreteCQL got the action space Box.*expected a Discrete space.*CQL on data"
    ):
        DiscreteCQL(Countdown())


@pytest.mark.parametrize(
    ("agent_class", "name", "value"),
    [
        (CQL, "cql_alpha", -1.0),
        (CQL, "cql_alpha_init", 0.0),
        (CQL, "action_samples", 0),
        (CQL, "actor_learning_rate", 0.0),
        (DiscreteCQL, "cql_alpha", -1.0),
        (DiscreteCQL, "prioritized", True),
    ],
)
def test_value_out_of_bounds_is_refused(agent_class: type, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value}: expected"):
        agent_class(Countdown(discrete=agent_class is DiscreteCQL), **{name: value})
