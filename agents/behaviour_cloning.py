"""Behaviour cloning: a policy that imitates the actions of a data set. The baseline of offline learning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from agents.config import OffPolicyConfig
from agents.loop.acting import NumpyForward, TorchForward
from agents.loop.agent import OffPolicyAgent
from agents.loop.checkpoint import load_agent
from agents.loop.offline import environment_for, learn_offline, replay_of
from agents.nets.mlp import MLP
from agents.nets.optim import FusedAdam
from agents.replay.buffers import Batch, ReplayBuffer


@dataclass(frozen=True)
class BehaviourCloningConfig(OffPolicyConfig):
    """Configuration of behaviour cloning; the keys about exploration and returns have no effect."""

    learning_rate: float = 1e-3


class BehaviourCloning(OffPolicyAgent):
    """Least squares on ``tanh(net(s))`` for continuous actions, cross-entropy for discrete ones.

    Args:
        env: gives the spaces; ``None`` takes them from the data.
        dataset: a Minari data set, its folder or its id.
        meter: see ``OffPolicyAgent``.
        settings: keys of ``BehaviourCloningConfig``.
    """

    config_class = BehaviourCloningConfig
    offline = True

    def __init__(self, env: Any = None, dataset: Any = None, *, meter: Any = None, **settings: Any) -> None:
        self._dataset = dataset
        env = environment_for(env, dataset)
        self.discrete = isinstance(getattr(env, "single_action_space", env.action_space), spaces.Discrete)
        super().__init__(env, meter=meter, **settings)
        if self.device.type == "cpu":
            self.numpy_forward = NumpyForward(self.net, self.net, self.meter)
        self._torch_forward = TorchForward(self.net, self.device)

    def build(self) -> None:
        config = self.config
        width = int(self.action_space.n) if self.discrete else self.action_space.shape[0]
        self.net = MLP([self.observation_shape[0], *config.net_arch, width], config.activation).to(self.device)
        self.optimizer = FusedAdam(self.net, lr=config.learning_rate, eps=config.adam_eps)

    def make_replay(self) -> ReplayBuffer:
        return replay_of(self, self._dataset)

    @property
    def actor(self) -> nn.Module:
        return self.net

    @property
    def own_modules(self) -> Mapping[str, nn.Module]:
        return {"actor": self.net}

    @property
    def own_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"actor": self.optimizer}

    def learn(self, gradient_steps: int, callback: Any = None, progress_bar: bool = False) -> Self:
        """Take ``gradient_steps`` more updates on the data set; see ``learn_offline``."""
        return learn_offline(self, gradient_steps, callback, progress_bar)

    @classmethod
    def load(cls, path: str, env: Any = None, meter: Any = None, **parts: Any) -> Self:
        """Return the agent that ``save`` wrote; pass ``dataset=…`` to let it learn on."""
        return load_agent(cls, path, env, meter, **parts)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        loss = self.loss(batch)
        self.optimizer.descend(loss)
        return {"loss": loss.detach()}

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean squared distance to the data's actions, or their mean negative log-likelihood."""
        output = self.net(batch.observation)
        if self.discrete:
            return F.cross_entropy(output, batch.action)
        return F.mse_loss(torch.tanh(output), batch.action)

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        output = self.acted(observation, deterministic)
        if output is None:
            output = self.require_finite_output(self._torch_forward(observation).cpu().numpy())
        if not self.discrete:
            return np.tanh(output)
        if deterministic:
            return output.argmax(1)
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        return (output + self.rng.gumbel(size=output.shape)).argmax(1)
