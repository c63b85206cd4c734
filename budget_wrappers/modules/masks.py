"""Masks beside a network: they are multiplied into its weights in place, so that everything sees an ordinary network.

Fused passes, acting engines, copies and checkpoints meet weights some of which are 0; nothing about the module changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from budget_wrappers.functional.sparsity import Distribution, PolynomialSchedule, magnitude_mask


class Masks(nn.Module):
    """One mask for the weight of each linear layer of ``network``; biases have none.

    The masks are buffers, of the layers' names, so a checkpoint keeps them; the network is none of its submodules.

    Args:
        network: whose weights are multiplied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network,)  # in a tuple: not a submodule, whose weights would be stored twice
        for name, layer in self._layers().items():
            self.register_buffer(name, torch.ones_like(layer.weight.detach()))

    def _layers(self) -> dict[str, nn.Linear]:
        parts = self._network[0].named_modules()
        return {name.replace(".", "_"): part for name, part in parts if isinstance(part, nn.Linear)}

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Outputs and inputs of each layer."""
        return [tuple(layer.weight.shape) for layer in self._layers().values()]

    @torch.no_grad()
    def apply_(self) -> None:
        """Multiply the masks into the weights, in place."""
        weights = [layer.weight for layer in self._layers().values()]
        torch._foreach_mul_(weights, list(self._buffers.values()))

    @torch.no_grad()
    def prune_smallest(self, counts: Sequence[int]) -> None:
        """Grow each mask to ``counts`` zeros, at the weights of the least magnitude; the weights stay as they are."""
        for (name, layer), count in zip(self._layers().items(), counts, strict=True):
            self._buffers[name].copy_(magnitude_mask(layer.weight, count, self._buffers[name]))

    @torch.no_grad()
    def follow(self) -> None:
        """Take the masks of layers that have changed size from their weights: what is 0 stays 0."""
        for name, layer in self._layers().items():
            if self._buffers[name].shape != layer.weight.shape:
                self._buffers[name] = (layer.weight != 0).to(layer.weight)

    def zeros(self) -> list[Tensor]:
        """Return the number of zeros of each mask."""
        return [(mask == 0).sum() for mask in self._buffers.values()]

    def sparsity(self) -> Tensor:
        """Return the share of the weights that are masked, a scalar."""
        return torch.stack(self.zeros()).sum() / sum(mask.numel() for mask in self._buffers.values())


class ScheduledMasks(Masks):
    """Masks that grow by magnitude as a schedule says.

    Args:
        network: whose weights are multiplied.
        schedule: of the sparsity of all its weights.
        distribution: shares of the layers.
    """

    def __init__(self, network: nn.Module, schedule: PolynomialSchedule, distribution: Distribution = "erk") -> None:
        super().__init__(network)
        self.schedule, self.distribution, self.complete = schedule, distribution, False

    def grow(self, progress: float, due: bool) -> None:
        """Grow the masks where that is ``due``, and once in any case when the schedule's end is reached.

        Args:
            progress: share of the run that is over.
            due: whether it is time.
        """
        ends = progress >= self.schedule.end and not self.complete
        if due or ends:
            self.prune_smallest(self.schedule.counts(self.shapes, progress, self.distribution))
            self.complete |= ends


__all__ = ["Masks", "ScheduledMasks"]
