"""Generative adversarial imitation learning: SAC whose reward is how much a discriminator takes it for the expert.

Sources: Ho & Ermon 2016 for the game; Kostrikov et al. 2019 ("Discriminator-Actor-Critic") for playing it off-policy,
the replay on the policy's side, a gradient penalty on the discriminator, rewards computed anew at each update; Fu et
al. 2018 (AIRL) for a reward of either sign. Discriminator-Actor-Critic has TD3 for SAC, and absorbing states, which are
left out here: what follows a termination counts 0. So ``−log(1 − D)``, which is positive everywhere, pays for living
on, and a student may avoid a goal that ends the episode, however its teacher hurries there; ``log D − log(1 − D)``
leans less to one side. Where only a time limit ends episodes there is no such bias.

Shapes: ``B`` pairs of a batch, ``O`` observation size, ``A`` action size.
"""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents.config import require
from agents.loop.method import Method
from agents.loop.offline import replay_of
from agents.nets.mlp import MLP
from agents.nets.networks import Critic
from agents.nets.optim import FusedAdam
from agents.replay.buffers import Batch
from agents.sac import SAC, SACConfig
from budget_wrappers.errors import DatasetError

RewardForm = Literal["-log(1-D)", "log D - log(1-D)"]


def discrimination_loss(policy: Tensor, expert: Tensor) -> Tensor:
    """Return ``mean_B [−log(1 − D(policy))] + mean_B [−log D(expert)]``, where ``D = sigmoid(logit)``.

    Args:
        policy: logits of the policy's pairs, shape ``(B,)``.
        expert: logits of the demonstrations', shape ``(B,)``.
    """
    return F.softplus(policy).mean() + F.softplus(-expert).mean()


def imitation_reward(logit: Tensor, form: RewardForm) -> Tensor:
    """Return the reward of pairs with these logits, whose sigmoid is D; the shape of ``logit``.

    ``"-log(1-D)"`` (Ho & Ermon 2016) is the logit's softplus, ``"log D - log(1-D)"`` (Fu et al. 2018) the logit itself.
    """
    return F.softplus(logit) if form == "-log(1-D)" else logit


@dataclass(frozen=True)
class GAILConfig(SACConfig):
    """Configuration of GAIL; all of SAC's keys are the generator's.

    Attributes:
        discriminator_net_arch: widths of the discriminator's hidden layers; ``activation`` is between them.
        discriminator_learning_rate: Adam's step size for the discriminator.
        discriminator_updates: its updates before each one of SAC.
        gradient_penalty: weight of ``mean (‖∇f‖ − 1)²``, f the logit, on lines between pairs of both sides; 0 for none.
        reward_form: what SAC is paid, D being the probability that the pair is the expert's.
    """

    discriminator_net_arch: tuple[int, ...] = (256, 256)
    discriminator_learning_rate: float = 3e-4
    discriminator_updates: int = 1
    gradient_penalty: float = 10.0
    reward_form: RewardForm = "-log(1-D)"

    def __post_init__(self) -> None:
        super().__post_init__()
        widths, rate = self.discriminator_net_arch, self.discriminator_learning_rate
        require(all(width >= 1 for width in widths), "discriminator_net_arch", widths, "widths of at least 1")
        require(rate > 0, "discriminator_learning_rate", rate, "a number above 0")
        require(self.discriminator_updates >= 1, "discriminator_updates", self.discriminator_updates, "at least 1")
        require(self.gradient_penalty >= 0, "gradient_penalty", self.gradient_penalty, "0 or more")
        require(self.n_step == 1, "n_step", self.n_step, "1: a batch has the pair of its first step only")
        require(self.hindsight == 0, "hindsight", self.hindsight, "0: pairs with other goals are nobody's")


class GAIL(SAC):
    """Generative adversarial imitation learning for continuous actions. The environment's reward has no effect.

    Args:
        env: to act in; its rewards are reported and not learnt from.
        demonstrations: a Minari data set, its folder or its id, of which observations and actions are used;
            ``None`` for an agent that only acts.
        meter, methods, actor, critic: see ``SAC``.
        settings: keys of ``GAILConfig``.

    Attributes:
        demonstrations: the pairs to imitate, as a replay.
        discriminator: ``[s, a] ↦ f``, where ``D(s, a) = sigmoid(f)`` is the probability that the pair is the expert's.

    Raises:
        DatasetError: demonstrations of other spaces, or that cannot be read.
        NonFiniteError: NaN or infinity in them.
    """

    config_class = GAILConfig
    config: GAILConfig

    def __init__(
        self,
        env: Any,
        demonstrations: Any = None,
        *,
        meter: Any = None,
        methods: Sequence[Method] = (),
        actor: Callable[..., nn.Module] | None = None,
        critic: Callable[..., Critic] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(env, meter=meter, methods=methods, actor=actor, critic=critic, **settings)
        self.demonstrations = replay_of(self, demonstrations)

    def build(self) -> None:
        super().build()
        config = self.config
        sizes = [self.observation_shape[0] + self.action_space.shape[0], *config.discriminator_net_arch, 1]
        # Plain layers: the penalty differentiates their gradient, and that of MLP, written out, has none.
        self.discriminator = nn.Sequential(*MLP(sizes, config.activation)).to(self.device)
        rate = config.discriminator_learning_rate
        self.discriminator_optimizer = FusedAdam(self.discriminator, lr=rate, eps=self.config.adam_eps)

    @property
    def own_modules(self) -> Mapping[str, nn.Module]:
        return {**super().own_modules, "discriminator": self.discriminator}

    @property
    def own_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {**super().own_optimizers, "discriminator": self.discriminator_optimizer}

    def learn(self, total_timesteps: int, callback: Any = None, progress_bar: bool = False) -> Self:
        """Train for ``total_timesteps`` more environment steps; see ``OffPolicyAgent``.

        Raises:
            DatasetError: the agent has no demonstrations.
        """
        if len(self.demonstrations) == 0:
            raise DatasetError(
                "GAIL has demonstrations=None and nobody to imitate: expected a data set; pass demonstrations=… when "
                "it is made or loaded"
            )
        return super().learn(total_timesteps, callback, progress_bar)

    def train(self, updates: int) -> None:
        """Take ``updates`` gradient steps, each after the discriminator's own on other samples."""
        size = self.config.batch_size
        for _ in range(updates):
            for _ in range(self.config.discriminator_updates):
                policy, expert = (replay.sample(size, self.generator) for replay in (self.replay, self.demonstrations))
                with self.learning("discriminator"):
                    self.metrics |= self.update_discriminator(policy, expert)
            super().train(1)

    def update_discriminator(self, policy: Batch, expert: Batch) -> dict[str, Tensor]:
        """Take one gradient step of the discriminator and return what to log."""
        loss, penalty = self.discriminator_losses(policy, expert)
        self.discriminator_optimizer.descend(loss + self.config.gradient_penalty * penalty)
        return {"discriminator_loss": loss.detach(), "gradient_penalty": penalty.detach()}

    def discriminator_losses(self, policy: Batch, expert: Batch) -> tuple[Tensor, Tensor]:
        """Return ``discrimination_loss`` of two batches of ``B`` and the unweighted penalty, 0 where it is off."""
        own, shown = (torch.cat([batch.observation, batch.action], 1) for batch in (policy, expert))
        logits = self.discriminator(torch.cat([own, shown])).squeeze(1)
        loss = discrimination_loss(*logits.chunk(2))
        return loss, self.penalty(own, shown) if self.config.gradient_penalty else torch.zeros_like(loss)

    def penalty(self, own: Tensor, shown: Tensor) -> Tensor:
        """Return ``mean_B (‖∇f(x)‖ − 1)²`` at ``x = u·shown + (1 − u)·own``, u uniform in [0, 1) for each row.

        Args:
            own: pairs of the policy, ``(B, O + A)``.
            shown: pairs of the demonstrations, the same shape.
        """
        share = torch.rand((len(own), 1), generator=self.generator, device=self.device)
        between = torch.lerp(own, shown, share).requires_grad_()
        (slope,) = torch.autograd.grad(self.discriminator(between).sum(), between, create_graph=True)
        return (slope.norm(dim=1) - 1.0).square().mean()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        reward = self.reward_of(batch)
        scaled = batch._replace(reward=reward * self.config.reward_scale)
        return {**super().update(scaled), "imitation_reward": reward.mean()}

    def reward_of(self, batch: Batch) -> Tensor:
        """Return what the present discriminator pays for each pair, ``(B,)``, whatever the environment paid."""
        with torch.no_grad():
            logit = self.discriminator(torch.cat([batch.observation, batch.action], 1)).squeeze(1)
        return imitation_reward(logit, self.config.reward_form)

    def plain_state(self) -> dict[str, Any]:
        own = {"demonstrations": len(self.demonstrations), "checksum": self.checksum()}
        return {**super().plain_state(), **own}

    def checksum(self) -> int:
        """Return a number that other demonstrations do not have, as a resumed run goes on with the same ones."""
        size = len(self.demonstrations)
        parts = (self.demonstrations.observation[:size], self.demonstrations.action[:size])
        return functools.reduce(lambda value, part: zlib.crc32(part.cpu().numpy().tobytes(), value), parts, 0)

    def load_plain_state(self, state: Mapping[str, Any]) -> None:
        super().load_plain_state(state)
        found, stored = len(self.demonstrations), state["demonstrations"]
        if found == stored and found and self.checksum() != state["checksum"]:
            raise DatasetError(f"{found} demonstrations, but other ones than the agent imitated; pass that data set")
        # An agent that is loaded without demonstrations only acts.
        if found and stored and found != stored:
            raise DatasetError(
                f"demonstrations of {found} pairs: expected the {stored} that the agent imitated; pass that data set"
            )
