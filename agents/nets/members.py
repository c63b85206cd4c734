"""Networks of one structure that learn side by side, and a window that shows one of them at a time.

The window is an ordinary network of the agent, with its ordinary optimizer: its parameters and moments are views of one
member's, so whatever is done to it is done to that member, by code that knows of one network. Moving the window moves
pointers, no numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.nets.optim import FusedAdam
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.sparsity import Distribution, magnitude_masks
from budget_wrappers.modules.mask_paths import LayerPaths
from budget_wrappers.modules.masks import masked_layers
from budget_wrappers.modules.surgery import Kept


class Members(nn.Module):
    """K members: their weights, targets, moments and masks, each as one tensor ``(K, *shape)``, a buffer.

    Args:
        window: shows one member; the first one has its weights.
        others: the other members' weights: networks of the window's structure.
        target: shows one member's target, which follows each of them; ``None`` where all of them share one.

    Attributes:
        shown: number of the member that the window shows.
        target_shown: number of the member that the target shows.
        version: another number whenever tensors were looked up anew.
    """

    tolerates_divergence = True
    """A member that is not crowned may have diverged: it is overwritten when members are selected next."""

    def __init__(self, window: nn.Module, others: Sequence[nn.Module], target: nn.Module | None = None) -> None:
        super().__init__()
        self._window, self._target = (window,), (target,)  # in tuples: no submodules, whose weights would be kept twice
        self.count, self.shown, self.target_shown = 1 + len(others), 0, 0
        self.version = 0
        self._optimizer: tuple[FusedAdam, int] | None = None
        self._lists: Any = None
        self._paths: LayerPaths | None = None
        self._pruned = False
        every = [window, *others]
        for name in _tensors_of(window):
            stacked = torch.stack([_tensors_of(one)[name].detach() for one in every])
            self.register_buffer(_entry("online", name), stacked)
            if target is not None:
                self.register_buffer(_entry("target", name), stacked.clone())
        for name, parameter in window.named_parameters():
            for moment in ("first", "second"):
                zeros = torch.zeros_like(parameter.detach()).expand(self.count, *parameter.shape).clone()
                self.register_buffer(_entry(moment, name), zeros)
        self.register_buffer("steps", torch.zeros(self.count))
        for name, layer in masked_layers(window).items():
            ones = torch.ones_like(layer.weight.detach())
            self.register_buffer(f"mask_{name}", ones.expand(self.count, *ones.shape).clone())
        self.look_up()

    @property
    def window(self) -> nn.Module:
        """The network of the agent that shows a member."""
        return self._window[0]

    # ---- the window -------------------------------------------------------------------------------------------------

    def look_up(self) -> None:
        """Look up every tensor anew, after some were replaced, and show the same members again."""
        window, target = self._window[0], self._target[0]
        self.version += 1
        self._shown = list(_tensors_of(window).values())
        self._online = self._stacks("online", _tensors_of(window))
        self._views = [[stack[k] for stack in self._online] for k in range(self.count)]
        if target is not None:
            self._target_shown = list(_tensors_of(target).values())
            self._targets = self._stacks("target", _tensors_of(target))
            self._target_views = [[stack[k] for stack in self._targets] for k in range(self.count)]
        layers = masked_layers(window)
        self._masks = {name: self._buffers[f"mask_{name}"] for name in layers}
        name_of = {tensor: name for name, tensor in _tensors_of(window).items()}
        self._weights = {name: self._buffers[_entry("online", name_of[layer.weight])] for name, layer in layers.items()}
        self._target_weights = (
            {}
            if target is None
            else {name: self._buffers[_entry("target", name_of[layer.weight])] for name, layer in layers.items()}
        )
        self._pruned = any(bool((mask == 0).any()) for mask in self._masks.values())
        self._moments: list[Tensor] = []
        if self._optimizer is not None:
            self._bind_moments()
        self.show(self.shown)
        if target is not None:
            self.show_target(self.target_shown)

    def _stacks(self, kind: str, names: Mapping[str, Tensor]) -> list[Tensor]:
        return [self._buffers[_entry(kind, name)] for name in names]

    def bind(self, optimizer: FusedAdam, group: int) -> None:
        """Let the window also show the members' moments.

        Args:
            optimizer: of the window.
            group: number of the optimizer's group that holds the window's parameters.
        """
        self._optimizer = optimizer, group
        self.look_up()

    def _bind_moments(self) -> None:
        optimizer, group = self._optimizer
        self._lists, lists = optimizer.lists, optimizer.lists[group]
        self._moments = [*lists.first, *lists.second, lists.steps[0]]
        name_of = {parameter: name for name, parameter in self._window[0].named_parameters()}
        names = [name_of[parameter] for parameter in lists.parameters]
        stacks = [self._buffers[_entry(moment, name)] for moment in ("first", "second") for name in names]
        self._moment_views = [[stack[k] for stack in (*stacks, self.steps)] for k in range(self.count)]

    def keep_up(self) -> None:
        """Look up every tensor anew if the optimizer's are others now, as in a copy of an agent."""
        if self._optimizer is not None and self._optimizer[0].lists is not self._lists:
            self.look_up()

    def show(self, member: int) -> None:
        """Let the window be a member: its weights and, where an optimizer is bound, its moments."""
        self.keep_up()
        self.shown = member
        for shown, view in zip(self._shown, self._views[member], strict=True):
            shown.data = view
        if self._moments:
            for shown, view in zip(self._moments, self._moment_views[member], strict=True):
                shown.data = view

    def show_target(self, member: int) -> None:
        """Let the window of the targets be a member's."""
        self.target_shown = member
        for shown, view in zip(self._target_shown, self._target_views[member], strict=True):
            shown.data = view

    def averaged(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the weights of all members and of all targets, for the moving average that moves every target."""
        names = [name for name, _ in self._window[0].named_parameters()]
        return tuple([self._buffers[_entry(kind, name)] for name in names] for kind in ("online", "target"))

    def of_layers(self, network: nn.Module) -> tuple[list[Tensor], tuple[list[Tensor], list[Tensor]]]:
        """Return all members' parameters of a part of the window, in its order, and both of their moments."""
        name_of = {parameter: name for name, parameter in self.window.named_parameters()}
        names = [name_of[parameter] for parameter in network.parameters()]
        online, first, second = (
            [self._buffers[_entry(kind, name)] for name in names] for kind in ("online", "first", "second")
        )
        return online, (first, second)

    # ---- members ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def overwrite(self, place: int, source: int) -> None:
        """Copy a member with its target and mask over another, which begins with moments of 0."""
        for name, stack in self._buffers.items():
            if name.startswith(("first_", "second_")) or name == "steps":
                stack[place].zero_()
            else:
                stack[place].copy_(stack[source])

    @torch.no_grad()
    def prune(self, member: int, sparsity: float, distribution: Distribution) -> bool:
        """Grow a member's masks to a sparsity by magnitude, and set what they mask to 0, also in its target.

        Args:
            member: number of it.
            sparsity: share of its weights that are 0; masks that have more zeros stay as they are.
            distribution: shares of the layers.

        Returns:
            Whether masks of that sparsity leave a path from an input to an output; if not, nothing was changed.
        """
        weights = [stack[member] for stack in self._weights.values()]
        masks = magnitude_masks(weights, sparsity, [mask[member] for mask in self._masks.values()], distribution)
        named = dict(zip(self._masks, masks, strict=True))
        if self._paths is not None and self._paths.broken_layer(named) is not None:
            return False
        for name, mask in named.items():
            self._masks[name][member].copy_(mask)
            self._weights[name][member].mul_(mask)
            if self._target_weights:
                self._target_weights[name][member].mul_(mask)
        self._pruned = self._pruned or any(bool((mask == 0).any()) for mask in masks)
        return True

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set what masks are 0 at to 0, in every member's weights."""
        if self._pruned:
            torch._foreach_mul_(list(self._weights.values()), list(self._masks.values()))

    def finite(self) -> np.ndarray:
        """Return whether each member's weights are all finite, ``(K,)``: their sums are not where one is not."""
        sums = torch.stack([stack.flatten(1).sum(1) for stack in self._online if stack.is_floating_point()])
        return sums.isfinite().all(0).cpu().numpy()

    def find_paths(self, *example_inputs: Tensor) -> None:
        """Find how the layers read each other; without it every mask leaves a path."""
        self._example_inputs = example_inputs
        self._paths = LayerPaths(self._window[0], masked_layers(self._window[0]), example_inputs)

    def sparsity(self, member: int) -> float:
        """Return the share of a member's weights that are masked."""
        masks = [mask[member] for mask in self._masks.values()]
        return sum(int((mask == 0).sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    def effective_sparsity(self, member: int) -> float:
        """Return the share of a member's weights that lie on no path from an input to an output."""
        return self._paths.effective_sparsity({name: mask[member] for name, mask in self._masks.items()})

    # ---- structure --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def follow(self, kept: Kept | None, restoring: bool) -> None:
        """Take over that layers of the window have changed size: what it has lost, every member loses.

        Args:
            kept: what is left of each of the window's parameters.
            restoring: whether weights are about to be read from a file, so that their values do not matter yet.

        Raises:
            ConfigError: sizes have changed, and ``kept`` does not say which units are left.
        """
        named = dict(self._window[0].named_parameters())
        layer_of = {layer.weight: name for name, layer in masked_layers(self._window[0]).items()}
        changed = False
        for name, parameter in named.items():
            entries = [_entry(kind, name) for kind in ("online", "target", "first", "second")]
            entries += [f"mask_{layer_of[parameter]}"] if parameter in layer_of else []
            for entry in (entry for entry in entries if entry in self._buffers):
                stack = self._buffers[entry]
                if stack.shape[1:] == parameter.shape:
                    continue
                changed = True
                for dimension, index in (kept or {}).get(parameter, ()):
                    stack = stack.index_select(dimension + 1, index)
                if stack.shape[1:] != parameter.shape:
                    if not restoring:
                        raise ConfigError(
                            f"{name} has become {tuple(parameter.shape)} in one of {self.count} members, which have "
                            f"{tuple(stack.shape[1:])}: expected to be told which units are left, in all of them; call "
                            "agent.structure_changed(kept) with what remove_units or keep_units returned"
                        )
                    stack = stack.new_zeros(self.count, *parameter.shape)
                self._buffers[entry] = stack
            if not any(parameter is shown for shown in self._shown):  # a part was put in: every member has it
                self._buffers[_entry("online", name)][:] = parameter.detach()
        if changed and self._paths is not None:
            self.find_paths(*self._example_inputs)
        self.look_up()


def _tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers of ``network`` by name."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _entry(kind: str, name: str) -> str:
    return f"{kind}_{name.replace('.', '_')}"


__all__ = ["Members"]
