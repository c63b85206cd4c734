"""Which weights of a pruned network lie on a path from an input to an output, and carry something of the input."""

from collections.abc import Sequence

import torch
from torch import Tensor

Reads = Sequence[tuple[int, int]]
"""Of one layer: the layers whose units it reads, and its first input that is one of them."""


def on_paths(masks: Sequence[Tensor], reads: Sequence[Reads]) -> list[Tensor]:
    """Return for each layer which of its weights lie on a path from an input of the network to an output of it.

    Args:
        masks: of the layers, ``(outputs, inputs, …)`` with 0 at weights that are gone; a layer comes after those that
            it reads. Of a convolution two channels are connected by any weight between them.
        reads: of each layer. Inputs that no listed layer makes are inputs of the network, and units that no layer reads
            are its outputs.

    Returns:
        Booleans of the masks' shapes.
    """
    reached, wanted = path_ends(masks, reads)
    found = []
    for mask, sources, outputs in zip(masks, reads, wanted, strict=True):
        own = _connected(mask)
        living = own & _living_inputs(own, sources, reached) & outputs.unsqueeze(1)
        found.append((mask != 0) & living.reshape(*living.shape, *[1] * (mask.dim() - 2)))
    return found


def path_ends(masks: Sequence[Tensor], reads: Sequence[Reads]) -> tuple[list[Tensor], list[Tensor]]:
    """Return for each layer which of its units an input of the network reaches, and which reach an output of it.

    Args:
        masks: see ``on_paths``.
        reads: see ``on_paths``.

    Returns:
        Two booleans for each unit of each layer, ``(outputs,)`` each.
    """
    there = [_connected(mask) for mask in masks]
    reached: list[Tensor] = []
    for own, sources in zip(there, reads, strict=True):
        reached.append((own & _living_inputs(own, sources, reached)).any(1))
    wanted: list[Tensor | None] = [None] * len(there)
    for layer in reversed(range(len(there))):
        own = wanted[layer]
        if own is None:  # nobody reads them: outputs
            own = wanted[layer] = torch.ones(len(there[layer]), dtype=torch.bool, device=there[layer].device)
        for source, start in reads[layer]:
            asked = (there[layer] & own.unsqueeze(1)).any(0)[start : start + len(reached[source])]
            wanted[source] = asked if wanted[source] is None else wanted[source] | asked
    return reached, wanted


def _connected(mask: Tensor) -> Tensor:
    """Return which units of a layer read which of its inputs, ``(outputs, inputs)``."""
    return (mask != 0).flatten(2).any(2) if mask.dim() > 2 else mask != 0


def _living_inputs(own: Tensor, sources: Reads, reached: Sequence[Tensor]) -> Tensor:
    """Return which inputs of a layer an input of the network reaches, ``(inputs,)``."""
    inputs = torch.ones(own.shape[1], dtype=torch.bool, device=own.device)
    for source, start in sources:
        inputs[start : start + len(reached[source])] = reached[source]
    return inputs


def broken_at(masks: Sequence[Tensor], reads: Sequence[Reads]) -> int | None:
    """Return the first layer none of whose weights lies on a path, ``None`` where each has one; see ``on_paths``."""
    return next((layer for layer, living in enumerate(on_paths(masks, reads)) if not living.any()), None)


__all__ = ["Reads", "broken_at", "on_paths", "path_ends"]
