"""Whether the weights of a module are numbers: a network that has diverged, or a file that was damaged, holds NaN."""

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor, nn

from budget_wrappers.errors import NonFiniteError


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the float tensors that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]


def require_finite_weights(module: nn.Module, what: str) -> None:
    """Raise unless every parameter and buffer of ``module`` is finite.

    Args:
        module: that is about to act.
        what: its name in the message.

    Raises:
        NonFiniteError: it names the first weights that are not finite.
    """
    if names := non_finite(module.state_dict()):
        raise NonFiniteError(
            f"the weights of {what} are not finite ({listed(names)}): expected numbers. The network has diverged or "
            "its file was damaged: take an earlier checkpoint"
        )


def refuse_output(module: nn.Module, output: Any) -> NoReturn:
    """Raise for an output of ``module`` that is not finite.

    Raises:
        NonFiniteError: it names the weights that are not finite, or the observation where all are.
    """
    require_finite_weights(module, "the policy")
    raise NonFiniteError(
        f"the policy computed {output!r}: expected finite numbers. Its weights are finite, so the observation is too "
        "large for them: normalise observations"
    )


def listed(names: list[str]) -> str:
    """Return the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


__all__ = ["listed", "non_finite", "refuse_output", "require_finite_weights"]
