"""Asking a network: what it answers, what it says besides, and whether the forward pass is one that is updated.

A textbook network returns its output. A network that says more, such as the logits of choices beside the outputs of
every sub-policy, returns a record with a field ``output`` first: agents read the output and hand on the record.
"""

from typing import Any

from torch import Tensor, nn

TELLS_UPDATES = "tells_updates"
"""Attribute of a class of networks whose ``forward`` takes ``updated=``: whether a loss of this pass updates it."""


def ask(network: nn.Module, x: Tensor, updated: bool = False) -> Any:
    """Return what ``network`` says of ``x``.

    Args:
        network: asked.
        x: shape ``(B, O)``.
        updated: whether the loss that this pass is part of updates the network. Networks that draw something while
            they learn, and only then, set ``tells_updates = True`` and get it as a keyword.
    """
    if getattr(type(network), TELLS_UPDATES, False):
        return network(x, updated=updated)
    return network(x)


def output_of(said: Any) -> Tensor:
    """Return the output of what a network said: itself, or a record's ``output``."""
    return said if isinstance(said, Tensor) else said.output


def besides(said: Any) -> Any:
    """Return the record of a network that says more than its output, else ``None``."""
    return said if hasattr(said, "output") else None
