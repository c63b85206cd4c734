"""The units of one hidden layer, and every place where they lie: who makes them and who reads them.

A group is the outputs of one linear layer that nothing but other linear layers reads, possibly after activations and
batch norms, which treat every unit by itself. Such a group can be multiplied unit by unit where it is read, and units
can be taken out of it. ``unit_groups`` finds those of a module; ``chain_group`` says one by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from budget_wrappers.arguments import an_instance, refuse
from budget_wrappers.errors import ConfigError

UNITWISE = (
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Mish, nn.ReLU6, nn.SELU),
    *(nn.Hardswish, nn.Hardtanh, nn.CELU, nn.LogSigmoid, nn.Softsign, nn.Dropout, nn.Identity, nn.BatchNorm1d),
)
"""Modules that treat each unit by itself."""


@dataclass(eq=False)
class Reader:
    """A linear layer some of whose inputs are the units of a group.

    Attributes:
        layer: that reads them.
        start: its first input that is one of them; the others follow. ``remove_units`` keeps it up to date.
        others: readings of other groups by the same layer, whose places move when units in front of them go.
    """

    layer: nn.Linear
    start: int = 0
    others: list["Reader"] = field(default_factory=list, repr=False)


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """The units of one hidden layer.

    Attributes:
        name: of the layer that makes them, as ``named_modules`` has it.
        maker: whose outputs they are.
        readers: every layer that reads them.
        norms: batch norms between maker and readers.
    """

    name: str
    maker: nn.Linear
    readers: tuple[Reader, ...]
    norms: tuple[nn.BatchNorm1d, ...] = ()

    @property
    def units(self) -> int:
        """How many there are now."""
        return self.maker.weight.shape[0]


def chain_group(parts: Sequence[nn.Module], readers: Sequence[nn.Linear], name: str = "") -> UnitGroup:
    """Return the group of a linear layer, what follows it unit by unit, and the layers that read it, said by hand.

    Args:
        parts: the linear layer, then activations and batch norms in the order in which they run.
        readers: linear layers all of whose inputs are these units.
        name: of the group.

    Raises:
        ConfigError: the first is no linear layer, another does not treat each unit by itself, or a reader has another
            number of inputs.
    """
    if not isinstance(parts, list | tuple) or not parts:
        refuse("parts", parts, "a list of modules, a torch.nn.Linear first")
    if not isinstance(readers, list | tuple) or not readers:
        refuse("readers", readers, "a list of the torch.nn.Linear layers that read the units, one at least")
    maker, *others = parts
    an_instance("parts", maker, nn.Linear, "a torch.nn.Linear first")
    for part in others:
        an_instance("parts", part, UNITWISE, "activations and batch norms, which treat each unit by itself")
    for reader in readers:
        an_instance("readers", reader, nn.Linear, "the torch.nn.Linear layers that read the units")
        if reader.in_features != maker.out_features:
            raise ConfigError(
                f"a reader of {reader.in_features} inputs: expected the {maker.out_features} units of the layer "
                "before; pass the layers that read it directly"
            )
    norms = tuple(part for part in others if isinstance(part, nn.BatchNorm1d))
    for norm in norms:
        if norm.num_features != maker.out_features:
            raise ConfigError(
                f"a batch norm of {norm.num_features} units: expected the {maker.out_features} units of the layer "
                "before; pass those that follow it"
            )
    return UnitGroup(name, maker, tuple(map(Reader, readers)), norms)


__all__ = ["UNITWISE", "Reader", "UnitGroup", "chain_group"]
