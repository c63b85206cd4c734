"""How the layers of a network read each other, found by watching it, for saying which weights lie on a path."""

import graphlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from budget_wrappers.errors import NoPathError
from budget_wrappers.functional.paths import broken_at, on_paths
from budget_wrappers.modules.unit_groups import unit_groups


class LayerPaths:
    """Which layers of a network read which, and what masks of them leave.

    Units that go anywhere but into linear layers (a sum, a layer norm) count as outputs of the network, and what such
    a part says as inputs of it: every path found is one, and a weight may be taken for living that is not.

    Args:
        network: watched while it runs once.
        layers: of it, by the name of their masks.
        example_inputs: that the network takes.

    Attributes:
        names: of the layers, each after those that it reads.

    Raises:
        ConfigError: inputs that the network does not take, or layers whose weights are not what runs.
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, nn.Module], example_inputs: Sequence[Any]) -> None:
        name_of = {layer: name for name, layer in layers.items()}
        sources: dict[str, list[tuple[str, int]]] = {name: [] for name in layers}
        for group in unit_groups(network, *example_inputs):
            for reader in group.readers:
                sources[name_of[reader.layer]].append((name_of[group.maker], reader.start))
        graph = {name: [source for source, _ in read] for name, read in sources.items()}
        self.names = tuple(graphlib.TopologicalSorter(graph).static_order())
        place = {name: number for number, name in enumerate(self.names)}
        self._reads = [[(place[source], start) for source, start in sources[name]] for name in self.names]

    def living(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return which weights of each layer lie on a path from an input to an output; see ``on_paths``."""
        found = on_paths([masks[name] for name in self.names], self._reads)
        return dict(zip(self.names, found, strict=True))

    def effective_sparsity(self, masks: Mapping[str, Tensor]) -> float:
        """Return the share of the weights that lie on no path."""
        living = sum(int(own.sum()) for own in self.living(masks).values())
        return 1.0 - living / sum(mask.numel() for mask in masks.values())

    def broken_layer(self, masks: Mapping[str, Tensor]) -> str | None:
        """Return the first layer none of whose weights lies on a path, ``None`` where each has one."""
        place = broken_at([masks[name] for name in self.names], self._reads)
        return None if place is None else self.names[place]

    def require_paths(self, masks: Mapping[str, Tensor]) -> None:
        """Raise for masks that leave no path through a layer.

        Raises:
            NoPathError: it names the layer.
        """
        broken = self.broken_layer(masks)
        if broken is not None:
            kept = int((masks[broken] != 0).sum())
            raise NoPathError(
                f"the masks leave {kept} of {masks[broken].numel()} weights of {broken.removeprefix('of_')} and no "
                "path from an input to an output through them: expected one at least; prune less, or with "
                "distribution='erk', which spares narrow layers"
            )


__all__ = ["LayerPaths"]
