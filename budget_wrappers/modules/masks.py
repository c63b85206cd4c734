"""Masks beside a network: they are multiplied into its weights in place, so that everything sees an ordinary network.

Fused passes, acting engines, copies and checkpoints meet weights some of which are 0; nothing about the module changes.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from budget_wrappers.arguments import an_instance, refuse
from budget_wrappers.errors import ComputeWarning, ConfigError, NoPathError
from budget_wrappers.functional.sparsity import (
    DISTRIBUTIONS,
    Distribution,
    PolynomialSchedule,
    layer_sparsities,
    magnitude_mask,
    magnitude_masks,
    pruned_counts,
)
from budget_wrappers.modules.mask_paths import LayerPaths
from budget_wrappers.modules.surgery import Kept

PRUNED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights masks are of."""


def masked_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of ``network`` that masks are of, by the names of their masks."""
    return {f"of_{name.replace('.', '_')}": part for name, part in network.named_modules() if isinstance(part, PRUNED)}


class Masks(nn.Module):
    """One mask for the weight of each linear layer and convolution of ``network``; biases have none.

    The masks are buffers, named after the layers, so a checkpoint keeps them; the network is none of its submodules.

    Args:
        network: whose weights are multiplied.
        example_inputs: that it takes, such as ``torch.zeros(1, observation_size)``. With them masks say which weights
            lie on a path, and masks that leave none are refused.

    Raises:
        ConfigError: a network without such layers; inputs that it does not take.
    """

    def __init__(self, network: nn.Module, *example_inputs: Any) -> None:
        super().__init__()
        an_instance("network", network, nn.Module, "a torch.nn.Module with linear layers")
        self._network = (network,)  # in a tuple: not a submodule, whose weights would be stored twice
        self._example_inputs, self._paths = example_inputs, None
        for name, layer in self._layers().items():
            self.register_buffer(name, torch.ones_like(layer.weight.detach()))
        if not self._layers():
            raise ConfigError(f"masks of a {type(network).__name__}: expected linear layers; it has none to prune")
        self._known_paths()  # raises

    def _layers(self) -> dict[str, nn.Module]:
        return masked_layers(self._network[0])

    def _masks(self) -> dict[str, Tensor]:
        return {name: self._buffers[name] for name in self._layers()}

    def _known_paths(self) -> LayerPaths | None:
        """Return how the layers read each other, found once and after each change of the network."""
        if self._example_inputs and self._paths is None:
            self._paths = LayerPaths(self._network[0], self._layers(), self._example_inputs)
        return self._paths

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Outputs and inputs of each layer, of convolutions with the sizes of the kernel."""
        return [tuple(layer.weight.shape) for layer in self._layers().values()]

    @torch.no_grad()
    def apply_(self) -> None:
        """Multiply the masks into the weights, in place."""
        weights = [layer.weight for layer in self._layers().values()]
        torch._foreach_mul_(weights, list(self._masks().values()))

    @torch.no_grad()
    def prune_smallest(self, counts: Sequence[int]) -> None:
        """Grow each mask to ``counts`` zeros, at the weights of the least magnitude; the weights stay as they are.

        Raises:
            NoPathError: the masks would leave no path from an input to an output; they are as they were.
        """
        layers, masks = self._layers(), self._masks()
        self._take(
            [
                magnitude_mask(layer.weight, count, masks[name])
                for (name, layer), count in zip(layers.items(), counts, strict=True)
            ]
        )

    @torch.no_grad()
    def prune_to(self, sparsity: float, distribution: Distribution) -> None:
        """Grow the masks to a sparsity of the whole; see ``prune_smallest``."""
        weights = [layer.weight for layer in self._layers().values()]
        self._take(magnitude_masks(weights, sparsity, list(self._masks().values()), distribution))

    def _take(self, masks: Sequence[Tensor]) -> None:
        named, paths = dict(zip(self._layers(), masks, strict=True)), self._known_paths()
        if paths is not None:
            paths.require_paths(named)
        for name, mask in named.items():
            self._buffers[name].copy_(mask)

    @torch.no_grad()
    def follow(self, kept: Kept | None = None) -> None:
        """Take over that layers have changed size: a weight that stays keeps its mask, a new one is not masked.

        Args:
            kept: what is left of each weight. Of a weight that is not listed, a part that has become smaller is masked
                where it is 0; units that it has gained are taken for the last ones.
        """
        self._paths = None  # the places where layers read others have moved
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

    def effective_sparsity(self) -> float | None:
        """Return the share of the weights that lie on no path from an input to an output.

        It is at least ``sparsity()``; ``None`` where no example inputs were given.
        """
        paths = self._known_paths()
        return None if paths is None else paths.effective_sparsity(self._masks())


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
        example_inputs: see ``Masks``.

    Attributes:
        complete: whether the end of the schedule has been reached, where masks grow as far as they can; a buffer.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: PolynomialSchedule,
        distribution: Distribution = "erk",
        example_inputs: Sequence[Any] = (),
    ) -> None:
        an_instance("schedule", schedule, PolynomialSchedule, "a PolynomialSchedule")
        if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
            refuse("distribution", distribution, f"one of {', '.join(DISTRIBUTIONS)}")
        super().__init__(network, *example_inputs)
        self._warned = False
        self.schedule, self.distribution = schedule, distribution
        self.register_buffer("complete", torch.tensor(False))

    def grow(self, progress: float, due: bool) -> None:
        """Grow the masks where that is ``due``, and once in any case when the schedule's end is reached.

        Masks that would leave no path from an input to an output stay as they are, and a ``ComputeWarning`` says so.

        Args:
            progress: share of the run that is over.
            due: whether it is time.
        """
        ends = progress >= self.schedule.end and not bool(self.complete)
        if due or ends:
            try:
                self._grow_to(self.schedule.reached(progress))
            except NoPathError as error:
                self._warn_of(error)
            self.complete |= ends

    def _warn_of(self, error: NoPathError) -> None:
        """Say once that masks stay as they are: training is not to be lost where a network is too small to prune."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{error}. The masks stay at a sparsity of {float(self.sparsity()):.3g}, and training goes on.",
                ComputeWarning,
                stacklevel=3,
            )

    def _grow_to(self, share: float) -> None:
        """Grow the masks to a share of the final sparsity, of each layer the same share of its own."""
        if self.distribution == "global":
            self.prune_to(share * self.schedule.final, "global")
            return
        final = layer_sparsities(self.shapes, self.schedule.final, self.distribution)
        self.prune_smallest(pruned_counts(self.shapes, final, share))


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

    def effective_sparsity(self) -> dict[str, float]:
        """Return the share of the weights of each network that lie on no path; see ``Masks.effective_sparsity``."""
        found = {name: masks.effective_sparsity() for name, masks in self.items()}
        return {name: share for name, share in found.items() if share is not None}


__all__ = ["PRUNED", "MaskSet", "Masks", "ScheduledMasks", "masked_layers"]
