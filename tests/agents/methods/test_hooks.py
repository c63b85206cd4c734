"""Where an agent asks its methods, in which order, and what it says of its forward passes."""

from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import DQN, SAC, TD3
from agents.dqn import QNetwork
from agents.loop.method import Method
from agents.nets.networks import Critic, DeterministicActor, GaussianActor, textbook_critic
from agents.nets.optim import FusedAdam
from tests.agents.methods.combining import made

PLACES = (
    *("before_acting", "after_acting", "after_storing", "before_update", "critic_losses", "before_actor_update"),
    *("actor_losses", "descend", "after_target", "after_update"),
)


class Diary(Method):
    """Writes down when it is asked; changes nothing."""

    name = "diary"

    def __init__(self, name: str = "diary", log: list[tuple[str, str]] | None = None) -> None:
        super().__init__()
        self.name, self.log = name, [] if log is None else log

    def counted(self) -> dict[str, int]:
        return dict(Counter(place for _, place in self.log))


def noting(place: str) -> Any:
    def member(self: Diary, agent: Any, *given: Any) -> Any:
        self.log.append((self.name, place))
        return getattr(Method, place)(self, agent, *given)

    return member


for place in PLACES:
    setattr(Diary, place, noting(place))


@pytest.mark.parametrize(
    ("name", "critics", "actors", "targets"),
    # 20 updates. TD3's policy and targets move every second one; DQN's target after 10,000 steps, discrete CQL's after
    # 1,000 updates: not here. A network of values has no critics.
    [("sac", 20, 20, 20), ("td3", 20, 10, 10), ("dqn", 0, 20, 0), ("cql", 20, 20, 20), ("discrete-cql", 0, 20, 0)],
)
def test_each_place_is_asked_as_often_as_it_is_passed(name: str, critics: int, actors: int, targets: int) -> None:
    diary = Diary()
    agent = made(name, [diary], learning_starts=30)
    agent.learn(20 if agent.offline else 50)
    acted = 0 if agent.offline else 50
    asked = {
        **dict.fromkeys(("before_acting", "after_acting", "after_storing"), acted),
        **dict.fromkeys(("before_update", "after_update"), 20),
        **dict.fromkeys(("before_actor_update", "actor_losses", "descend"), actors),
        "critic_losses": critics,
        "after_target": targets,
    }
    assert diary.counted() == {place: count for place, count in asked.items() if count}


def test_one_step_asks_the_methods_in_the_order_of_their_list() -> None:
    log: list[tuple[str, str]] = []
    agent = made("sac", [Diary("first", log), Diary("second", log)], learning_starts=5).learn(5)
    log.clear()
    agent.learn(1)
    places = (
        *("before_acting", "after_acting", "after_storing", "before_update", "critic_losses", "before_actor_update"),
        *("descend", "actor_losses", "after_target", "after_update"),
    )
    assert log == [(who, place) for place in places for who in ("first", "second")]


def test_losses_stay_apart_until_the_last_line() -> None:
    class Half(Method):
        """Leaves the second critic alone and halves the actor's losses."""

        name = "half"

        def critic_losses(self, agent: Any, batch: Any, losses: torch.Tensor) -> torch.Tensor:
            assert losses.shape == (2, 1)  # critics, heads
            return losses * losses.new_tensor([[1.0], [0.0]])

        def actor_losses(self, agent: Any, made_of: Any) -> torch.Tensor:
            assert made_of.losses.shape == (1,)  # sub-policies
            return made_of.losses * 0.5

    agent, plain = (made("sac", methods, learning_starts=10) for methods in ([Half()], []))
    for one in (agent, plain):
        one.learn(10)
    batch, alpha = agent.replay.sample(16, torch.Generator().manual_seed(0)), torch.tensor(0.1)
    parameters = [list(member.parameters()) for member in agent.critic.members]
    gradients = torch.autograd.grad(agent.critic_loss(batch, alpha), parameters[0] + parameters[1])
    assert any(gradient.abs().max() > 0 for gradient in gradients[: len(parameters[0])])
    assert all(gradient.abs().max() == 0 for gradient in gradients[len(parameters[0]) :])
    for one in (agent, plain):
        one.generator.manual_seed(1)
    own = [one.sample(batch.observation) for one in (agent, plain)]
    assert torch.equal(agent.actor_loss(batch, own[0], alpha) * 2, plain.actor_loss(batch, own[1], alpha))


def test_critic_losses_apart_are_the_fused_loss_and_its_gradient() -> None:
    torch.manual_seed(0)
    critic = Critic(3, 2, (8, 8), "relu", heads=3)
    observation, action, target = torch.randn(16, 3), torch.randn(16, 2), torch.randn(3, 16)
    apart, fused = critic.losses(observation, action, target), critic.squared_error(observation, action, target)
    assert apart.shape == (2, 3)
    torch.testing.assert_close(apart.sum(), fused)
    for mine, theirs in zip(
        torch.autograd.grad(apart.sum(), critic.parameters()),
        torch.autograd.grad(fused, critic.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


# ---- forward passes that are updated --------------------------------------------------------------------------------


def telling(kind: type[torch.nn.Module], asked: list[tuple[bool, bool]]) -> type[torch.nn.Module]:
    """Return a network that writes down, for each pass, whether it is updated and whether gradients are on."""

    class Telling(kind):
        tells_updates = True

        def forward(self, x: torch.Tensor, updated: bool = False) -> Any:
            asked.append((updated, torch.is_grad_enabled()))
            return super().forward(x)

    return Telling


def passes(agent: Any, asked: list[tuple[bool, bool]]) -> list[tuple[bool, bool]]:
    batch = agent.replay.sample(16, agent.generator)
    asked.clear()
    with agent.learning("update"):  # else the meter's watch would run the network once more, to count it
        agent.update(batch)
    return list(asked)


UPDATED, LOOKED_AT = (True, True), (False, False)


def test_sac_says_which_of_its_policy_s_passes_are_updated() -> None:
    asked: list[tuple[bool, bool]] = []
    kind = telling(GaussianActor, asked)
    agent = SAC(
        gym.make("Pendulum-v1"),
        actor=lambda o, a, config: kind(o, a, config.net_arch, config.activation),
        net_arch=(8, 8),
        batch_size=16,
    ).learn(20)
    assert passes(agent, asked) == [UPDATED, LOOKED_AT]  # at s, then at s'


def test_td3_says_which_of_its_policies_passes_are_updated() -> None:
    asked: list[tuple[bool, bool]] = []
    kind = telling(DeterministicActor, asked)
    agent = TD3(
        gym.make("Pendulum-v1"),
        actor=lambda o, a, config: kind(o, a, config.net_arch, config.activation),
        policy_delay=1,
        net_arch=(8, 8),
        batch_size=16,
    ).learn(20)
    assert passes(agent, asked) == [LOOKED_AT, UPDATED]  # the target policy at s', then the policy at s


def test_dqn_says_which_of_its_networks_passes_are_updated() -> None:
    asked: list[tuple[bool, bool]] = []
    kind = telling(QNetwork, asked)
    agent = DQN(
        gym.make("CartPole-v1"),
        q_network=lambda o, a, config: kind(o, a, config.net_arch, config.activation),
        double=True,
        net_arch=(8, 8),
        batch_size=16,
    ).learn(20)
    assert passes(agent, asked) == [UPDATED, LOOKED_AT, LOOKED_AT]  # at s; the target at s', then whose pick it values


# ---- a critic of another kind ---------------------------------------------------------------------------------------


class Population(Critic):
    """Three members of which the first two judge; each has a loss: the protocol, met by something else than twins."""

    def __init__(self, observation_size: int, action_size: int, config: Any) -> None:
        super().__init__(observation_size, action_size, config.net_arch, config.activation, members=3)

    def smallest_of_own_actions(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self.of_own_actions(observation, action)[:2].amin(0)


@pytest.mark.parametrize("name", ["sac", "td3", "cql"])
def test_a_given_critic_needs_the_protocol_only(name: str) -> None:
    seen: list[torch.Size] = []

    class Shapes(Method):
        name = "shapes"

        def critic_losses(self, agent: Any, batch: Any, losses: torch.Tensor) -> torch.Tensor:
            seen.append(losses.shape)
            return losses

    agent = made(name, [Shapes()], critic=Population, learning_starts=10)
    agent.learn(20)
    assert set(seen) == {(3, 1)}
    assert isinstance(agent.critic_optimizer, FusedAdam)
    assert len(list(textbook_critic(3, 1, agent.config).parameters())) * 3 == len(list(agent.critic.parameters())) * 2
    assert np.isfinite(agent.predict(np.zeros(3, np.float32))[0]).all()
