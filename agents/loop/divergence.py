"""Noticing that training has diverged, and naming it: weights and losses that are not finite.

Weights are looked at where the agent acts, is saved, is evaluated and stops learning; an update in between is not
slowed down by a look at its loss.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from budget_wrappers.errors import CheckpointError, NonFiniteError
from budget_wrappers.modules.weights import listed, non_finite

REMEDY = (
    "Training has diverged: lower learning_rate, scale rewards and observations, and go on from an earlier checkpoint"
)


def refuse_output(agent: Any, output: Any) -> NoReturn:
    """Raise for an actor's output that is not finite.

    Raises:
        NonFiniteError: it names the weights that are not finite, or the observation where all are.
    """
    names = broken_weights(agent)
    what = f"the policy of {type(agent).__name__} computed {output!r} at environment step {agent.num_timesteps}: "
    if names:
        raise NonFiniteError(f"{what}the policy's weights are not finite ({listed(names)}); expected numbers. {REMEDY}")
    raise NonFiniteError(
        f"{what}expected finite numbers. Its weights are finite, so the observation is too large for them: normalise "
        "observations, for example with gymnasium.wrappers.NormalizeObservation"
    )


def require_converging(agent: Any) -> None:
    """Raise if the weights of an agent, or the losses of its last update, are not finite.

    Raises:
        NonFiniteError: it names them and the number of the update.
    """
    if names := broken_weights(agent):
        raise NonFiniteError(
            f"the weights of {type(agent).__name__} are not finite ({listed(names)}) after update "
            f"{agent.num_updates}; expected numbers. {REMEDY}"
        )
    require_finite_metrics(agent, {name: float(value) for name, value in agent.metrics.items() if is_number(value)})


def require_finite_metrics(agent: Any, metrics: dict[str, float]) -> None:
    """Raise if a number that is logged of an update is not finite.

    Raises:
        NonFiniteError: it names the numbers and the update.
    """
    wrong = [f"{name}={value}" for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise NonFiniteError(
            f"{listed(wrong)} in update {agent.num_updates} of {type(agent).__name__}; expected finite losses. {REMEDY}"
        )


def require_finite_tensors(own: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise if a checkpoint's weights, moments or transitions are not finite.

    Args:
        own: weights of the agent that takes them: one that is infinite there may be so in the file.
        stored: every tensor of the file.
        path: of the file, for the message.

    Raises:
        CheckpointError: it names the first of these tensors.
    """
    rest = {n: value for n, value in stored.items() if n.startswith(("optimizer/", "replay/"))}
    names = [n for n, value in own.items() if not (stored[n].isfinite() | (stored[n] == value.cpu())).all()]
    names += non_finite(rest)
    if names:
        raise CheckpointError(
            f"{path} holds NaN or infinity in {listed(names)}: expected numbers; the agent had diverged when it was "
            "saved, or the file was changed: take an earlier checkpoint"
        )


def broken_weights(agent: Any) -> list[str]:
    """Return the names of the weights of an agent that are not finite."""
    return [
        f"{name}/{key}"
        for name, module in agent.modules.items()
        if not getattr(module, "tolerates_divergence", False)
        for key, value in module.state_dict(keep_vars=True).items()
        if value.is_floating_point() and not value.isfinite().all() and not constant(value)
    ]


def constant(value: Tensor) -> bool:
    """Return whether a tensor is one number that does not learn: the logarithm of a temperature of 0 is infinite."""
    return value.numel() == 1 and not value.requires_grad and not bool(value.isnan())


def is_number(value: Any) -> bool:
    """Return whether a metric is one number."""
    return not isinstance(value, Tensor) or value.numel() == 1
