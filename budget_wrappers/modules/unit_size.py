"""The size of one network as a function of how many units its groups have: parameters, and FLOPs of one row.

The formulas are those of ``budget_wrappers.functional.complexity``; which layer has which sizes is read off the
network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from budget_wrappers.functional.complexity import Size, layer_cost, layer_flops
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.unit_group import UnitGroup


@dataclass(frozen=True)
class _Layer:
    """One linear layer.

    Attributes:
        inputs: of them, those that are no units of a group.
        reads: numbers of the groups whose units it reads.
        outputs: its units, where they are no group; else 0.
        makes: number of the group that it makes.
        bias: whether it has one.
    """

    inputs: int
    reads: tuple[int, ...]
    outputs: int
    makes: int | None
    bias: bool

    def sizes(self, counts: Sequence[Size]) -> tuple[Size, Size]:
        """Return inputs and outputs."""
        inputs = sum((counts[number] for number in self.reads), self.inputs)
        return inputs, self.outputs if self.makes is None else counts[self.makes]


class NetworkSize:
    """Parameters and FLOPs of ``module``, as functions of the numbers of units of its groups.

    It is multilinear: of the expected numbers of independent units it is the expected size. It stays true after units
    were removed from these groups.

    Args:
        module: a network.
        groups: its groups.
    """

    def __init__(self, module: nn.Module, groups: Sequence[UnitGroup]) -> None:
        makes = {group.maker: number for number, group in enumerate(groups)}
        reads: dict[nn.Module, list[int]] = {}
        norms: dict[nn.Module, int] = {}
        for number, group in enumerate(groups):
            for reader in group.readers:
                reads.setdefault(reader.layer, []).append(number)
            norms |= dict.fromkeys(group.norms, number)
        self._layers: dict[nn.Module, _Layer] = {}
        for part in module.modules():
            if isinstance(part, nn.Linear):
                own = tuple(reads.get(part, ()))
                rows, columns = part.weight.shape
                fixed = columns - sum(groups[number].units for number in own)
                outputs = 0 if part in makes else rows
                self._layers[part] = _Layer(fixed, own, outputs, makes.get(part), part.bias is not None)
        self._norms = [number for norm, number in norms.items() if norm.affine]
        every = sum(parameter.numel() for parameter in module.parameters())
        self._others = every - self._counted([group.units for group in groups])
        self._ways = _ways(module, self._layers)

    def _counted(self, counts: Sequence[Size]) -> Size:
        layers = sum(layer_cost(*layer.sizes(counts), layer.bias) for layer in self._layers.values())
        return layers + sum(2 * counts[number] for number in self._norms)

    def parameters(self, counts: Sequence[Size]) -> Size:
        """Return how many parameters the network has, everything that is no unit included.

        Args:
            counts: units of each group, whole, expected or tensors.
        """
        return self._counted(counts) + self._others

    def flops(self, counts: Sequence[Size]) -> Size:
        """Return the FLOPs of the linear layers for one row, ``matmul`` convention; of early exits, the dearest way.

        Args:
            counts: see ``parameters``.
        """
        return max(sum(layer_flops(*own) for own in way) for way in self.layers(counts))

    def layers(self, counts: Sequence[Size]) -> list[list[tuple[Size, Size]]]:
        """Return inputs and outputs of the linear layers that run, for each way through the network.

        Args:
            counts: see ``parameters``.
        """
        found = []
        for way in self._ways:
            sizes = [(layer.sizes(counts), only) for layer, only in way]
            found.append([(own[0], own[1] if only is None else only) for own, only in sizes])
        return found


def _ways(module: nn.Module, layers: dict[nn.Module, _Layer]) -> list[list[tuple[_Layer, int | None]]]:
    """Return the ways through the network: layers that run, and how many of their outputs, ``None`` for all."""
    if not isinstance(module, EarlyExitNetwork):
        return [[(layer, None) for layer in layers.values()]]
    trunk: list[tuple[_Layer, int | None]] = []
    ways = []
    for number, (stage, head) in enumerate(zip(module.stages, module.exits, strict=True)):
        trunk += [(layers[part], None) for part in stage if isinstance(part, nn.Linear)]
        ways.append([*trunk, (layers[head], None)])  # the head, and the gate where there is one
        if number < len(module.exits) - 1:
            trunk.append((layers[head], 1))
    return ways


__all__ = ["NetworkSize"]
