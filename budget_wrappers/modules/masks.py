"""Masks beside a network: they are multiplied into its weights in place, so that everything sees an ordinary network.

Fused passes, acting engines, copies and checkpoints meet weights some of which are 0; nothing about the module changes.
"""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from budget_wrappers.arguments import an_instance, refuse
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.sparsity import Distribution, PolynomialSchedule, magnitude_mask
from budget_wrappers.modules.surgery import Kept


class Masks(nn.Module):
    """One mask for the weight of each linear layer of ``network``; biases have none.

    The masks are buffers, named after the layers, so a checkpoint keeps them; the network is none of its submodules.

    Args:
        network: whose weights are multiplied.

    Raises:
        ConfigError: a network without linear layers.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        an_instance("network", network, nn.Module, "a torch.nn.Module with linear layers")
        self._network = (network,)  # in a tuple: not a submodule, whose weights would be stored twice
        for name, layer in self._layers().items():
            self.register_buffer(name, torch.ones_like(layer.weight.detach()))
        if not self._layers():
            raise ConfigError(f"masks of a {type(network).__name__}: expected linear layers; it has none to prune")

    def _layers(self) -> dict[str, nn.Linear]:
        parts = self._network[0].named_modules()
        return {f"of_{name.replace('.', '_')}": part for name, part in parts if isinstance(part, nn.Linear)}

    def _masks(self) -> dict[str, Tensor]:
        return {name: self._buffers[name] for name in self._layers()}

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Outputs and inputs of each layer."""
        return [tuple(layer.weight.shape) for layer in self._layers().values()]

    @torch.no_grad()
    def apply_(self) -> None:
        """Multiply the masks into the weights, in place."""
        weights = [layer.weight for layer in self._layers().values()]
        torch._foreach_mul_(weights, list(self._masks().values()))

    @torch.no_grad()
    def prune_smallest(self, counts: Sequence[int]) -> None:
        """Grow each mask to ``counts`` zeros, at the weights of the least magnitude; the weights stay as they are."""
        for (name, layer), count in zip(self._layers().items(), counts, strict=True):
            self._buffers[name].copy_(magnitude_mask(layer.weight, count, self._buffers[name]))

    @torch.no_grad()
    def follow(self, kept: Kept | None = None) -> None:
        """Take over that layers have changed size: a weight that stays keeps its mask, a new one is not masked.

        Args:
            kept: what is left of each weight. Of a weight that is not listed, a part that has become smaller is masked
                where it is 0; units that it has gained are taken for the last ones.
        """
        for name, layer in self._layers().items():
            mask, weight = self._buffers[name], layer.weight
            if mask.shape == weight.shape:
                continue
            if kept is not None and weight in kept:
                for dimension, index in kept[weight]:
                    mask = mask.index_select(dimension, index)
            if mask.shape != weight.shape:
                mask = _followed(mask, weight)
            self._buffers[name] = mask.contiguous()

    def zeros(self) -> list[Tensor]:
        """Return the number of zeros of each mask."""
        return [(mask == 0).sum() for mask in self._masks().values()]

    def sparsity(self) -> Tensor:
        """Return the share of the weights that are masked, a scalar."""
        return torch.stack(self.zeros()).sum() / sum(mask.numel() for mask in self._masks().values())


def _followed(mask: Tensor, weight: Tensor) -> Tensor:
    rows, columns = (min(before, now) for before, now in zip(mask.shape, weight.shape, strict=True))
    followed, zero = torch.ones_like(weight), weight == 0
    if mask.shape[0] <= weight.shape[0] and mask.shape[1] <= weight.shape[1]:
        zero[:rows, :columns] &= mask == 0
    followed[:rows, :columns] = (~zero[:rows, :columns]).to(weight)
    return followed


class ScheduledMasks(Masks):
    """Masks that grow by magnitude as a schedule says.

    Args:
        network: whose weights are multiplied.
        schedule: of the sparsity of all its weights.
        distribution: shares of the layers.

    Attributes:
        complete: whether the masks have grown to the end of the schedule; a buffer.
    """

    def __init__(self, network: nn.Module, schedule: PolynomialSchedule, distribution: Distribution = "erk") -> None:
        an_instance("schedule", schedule, PolynomialSchedule, "a PolynomialSchedule")
        if not isinstance(distribution, str) or distribution not in get_args(Distribution):
            refuse("distribution", distribution, f"one of {', '.join(get_args(Distribution))}")
        super().__init__(network)
        self.schedule, self.distribution = schedule, distribution
        self.register_buffer("complete", torch.tensor(False))

    def grow(self, progress: float, due: bool) -> None:
        """Grow the masks where that is ``due``, and once in any case when the schedule's end is reached.

        Args:
            progress: share of the run that is over.
            due: whether it is time.
        """
        ends = progress >= self.schedule.end and not bool(self.complete)
        if due or ends:
            self.prune_smallest(self.schedule.counts(self.shapes, progress, self.distribution))
            self.complete |= ends


class MaskSet(dict[str, ScheduledMasks]):
    """The masks of several networks, by name: what is done to all of them."""

    def grow(self, progress: float, due: bool) -> None:
        """See ``ScheduledMasks.grow``."""
        for masks in self.values():
            masks.grow(progress, due)

    def apply_(self) -> None:
        """See ``Masks.apply_``."""
        for masks in self.values():
            masks.apply_()

    def follow(self, kept: Kept | None = None) -> None:
        """See ``Masks.follow``."""
        for masks in self.values():
            masks.follow(kept)

    def sparsity(self) -> dict[str, Tensor]:
        """Return the share of the masked weights of each network."""
        return {name: masks.sparsity() for name, masks in self.items()}


__all__ = ["MaskSet", "Masks", "ScheduledMasks"]
