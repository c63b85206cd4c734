"""What early exits mean for each kind of actor: what an exit says, how it imitates the last one, what it would do.

``K`` exits, ``B`` transitions, ``A`` action size or actions.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from agents.loop.method import ActorPass
from agents.nets.networks import LOG_STD_MAX, LOG_STD_MIN


class ExitKind(Protocol):
    """What ``Exits`` asks of the kind of actor that it is given to."""

    def outputs(self, size: int) -> int:
        """Return how many numbers an exit says, for an action of ``size`` numbers or so many actions."""

    def imitation(self, made_of: ActorPass) -> Tensor:
        """Return how far each exit is from the last one, ``(K − 1,)``; no gradient reaches the last."""

    def judged_by_the_last(self, made_of: ActorPass) -> Tensor:
        """Return what each exit's choice is worth where only the last one learns, ``(K, B)``."""

    def certain(self, output: np.ndarray) -> np.ndarray:
        """Return the deterministic actions, as the replay stores them, of outputs ``(n, outputs)`` of one exit."""


class GaussianExits:
    """Exits that say means and log standard deviations."""

    def outputs(self, size: int) -> int:
        """Return two numbers for each of the action's."""
        return 2 * size

    def imitation(self, made_of: ActorPass) -> Tensor:
        """Return the mean divergence from the last exit."""
        return gaussian_divergence(made_of.output.mean, made_of.output.log_std).mean(1)

    def judged_by_the_last(self, made_of: ActorPass) -> Tensor:
        """Return what the one critic of the last exit says of all."""
        return made_of.worth()

    def certain(self, output: np.ndarray) -> np.ndarray:
        """Return the mean, squashed."""
        return np.tanh(np.split(output, 2, axis=-1)[0])


class DeterministicExits(GaussianExits):
    """Exits that say actions before the squash."""

    def outputs(self, size: int) -> int:
        """Return one number for each of the action's."""
        return size

    def imitation(self, made_of: ActorPass) -> Tensor:
        """Return the mean squared distance to the last exit's action."""
        action = made_of.output
        return (action[:-1] - action[-1].detach()).square().sum(2).mean(1)

    def certain(self, output: np.ndarray) -> np.ndarray:
        """Return the action, squashed."""
        return np.tanh(output)


class ValueExits:
    """Exits that say the value of each action: exit i learns from its own target and is worth ``max_a Q_i(s, a)``.

    The nearest published relative is RAPID-RL, whose rule is ``gate_training="fraction"``.
    """

    def outputs(self, size: int) -> int:
        """Return one value for each action."""
        return size

    def imitation(self, made_of: ActorPass) -> Tensor:
        """Return the mean squared distance to the last exit's values."""
        values = made_of.output
        return (values[:-1] - values[-1].detach()).square().sum(2).mean(1)

    def judged_by_the_last(self, made_of: ActorPass) -> Tensor:
        """Return the last exit's value of each exit's choice: an exit that imitates badly gains nothing.

        Only the last exit learns, so priorities follow from its error alone.
        """
        values = made_of.output.detach()
        made_of.error = made_of.error[-1:]
        return values[-1].gather(1, values.argmax(2).t()).t()

    def certain(self, output: np.ndarray) -> np.ndarray:
        """Return the action of the greatest value."""
        return output.argmax(1)


KINDS: dict[Any, ExitKind] = {"moments": GaussianExits(), "actions": DeterministicExits(), "values": ValueExits()}
"""By what the agent's actor says."""


def gaussian_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return ``KL(π_K ‖ π_i)`` of every exit but the last, ``(K − 1, B)``; no gradient reaches the last.

    Of the Gaussians before the squash, which a common bijection leaves as it is.

    Args:
        mean: shape ``(K, B, A)``.
        log_std: shape ``(K, B, A)``; bounded as in ``squashed_gaussian``.
    """
    log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    taught, model = (mean[:-1], log_std[:-1]), (mean[-1].detach(), log_std[-1].detach())
    ratio = torch.exp(2.0 * (model[1] - taught[1]))
    distance = ((model[0] - taught[0]) * torch.exp(-taught[1])).square()
    return (taught[1] - model[1] + 0.5 * (ratio + distance - 1.0)).sum(-1)
