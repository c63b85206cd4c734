"""Networks that say the value of every action. ``K`` heads, ``B`` rows, ``O`` and ``A`` sizes."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from agents.config import Activation
from agents.nets.mlp import MLP


class QNetwork(nn.Module):
    """Values of every action, as one perceptron.

    Args:
        observation_size: O.
        actions: A.
        hidden: widths of the hidden layers.
        activation: between layers.
        heads: K.
    """

    static_flops = True

    def __init__(
        self, observation_size: int, actions: int, hidden: Sequence[int], activation: Activation, heads: int = 1
    ) -> None:
        super().__init__()
        self.net, self.heads = MLP([observation_size, *hidden, heads * actions], activation), heads

    def forward(self, observation: Tensor) -> Tensor:
        """Return values ``(K, B, A)`` for ``observation`` ``(B, O)``."""
        return self.net(observation).unflatten(1, (self.heads, -1)).transpose(0, 1)


class DuelingQNetwork(nn.Module):
    """``Q = V + A − mean_a A``: the last hidden layer is one for each stream, those before it are shared.

    Args:
        observation_size, actions, hidden, activation, heads: see ``QNetwork``.

    Attributes:
        joints: names of perceptrons, and of those that read what they say.
    """

    static_flops = True

    def __init__(
        self, observation_size: int, actions: int, hidden: Sequence[int], activation: Activation, heads: int = 1
    ) -> None:
        super().__init__()
        shared, own = list(hidden[:-1]), list(hidden[-1:])
        self.heads = heads
        self.trunk = nn.Sequential(MLP([observation_size, *shared], activation), nn.ReLU()) if shared else nn.Identity()
        if shared and activation == "tanh":
            self.trunk[1] = nn.Tanh()
        features = shared[-1] if shared else observation_size
        self.joints = (("trunk.0", ("value", "advantage")),) if shared else ()
        self.value = MLP([features, *own, heads], activation)
        self.advantage = MLP([features, *own, heads * actions], activation)

    def forward(self, observation: Tensor) -> Tensor:
        """Return values ``(K, B, A)`` for ``observation`` ``(B, O)``."""
        features = self.trunk(observation)
        advantage = self.advantage(features).unflatten(1, (self.heads, -1))
        value = self.value(features).unsqueeze(2)
        return (value + advantage - advantage.mean(2, keepdim=True)).transpose(0, 1)


def textbook_q_network(observation_size: int, actions: int, config: Any) -> nn.Module:
    """Return the network of one head that ``config`` describes."""
    network = DuelingQNetwork if config.dueling else QNetwork
    return network(observation_size, actions, config.net_arch, config.activation)


__all__ = ["DuelingQNetwork", "QNetwork", "textbook_q_network"]
