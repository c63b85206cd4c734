"""Finding the hidden units of any module: it is watched while it runs, and what was seen is then tried on a copy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from budget_wrappers.arguments import an_instance
from budget_wrappers.errors import ConfigError
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.metering.quiet import all_quiet
from budget_wrappers.modules.unit_group import Reader, UnitGroup, chain_group
from budget_wrappers.modules.unit_proof import proved

_NAMES = ("relu", "tanh", "sigmoid", "silu", "gelu", "elu", "leaky_relu", "softplus", "mish", "relu6", "selu")
_NAMES += ("hardswish", "hardtanh", "celu", "logsigmoid", "softsign", "dropout", "batch_norm")
_SAME = ("clone", "contiguous", "detach", "to", "float")
_SHAPES = ("view", "reshape", "flatten", "squeeze", "unsqueeze")
_LIKE = ("new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like", "ones_like", "full_like")
_PLACES = (F, torch, Tensor, torch._C._nn)


def _functions(names: Sequence[str]) -> set[Any]:
    """Return every function of torch that has one of ``names``, in place or not."""
    named = [f"{name}{end}" for name in names for end in ("", "_")]
    return {getattr(place, name) for place in _PLACES for name in named if hasattr(place, name)}


_UNITWISE, _MAY_BE = _functions((*_NAMES, *_SAME)), _functions(_SHAPES)
_NORMS = _functions(("batch_norm",))
_NO_USE = _functions(_LIKE)
_JOINS = {torch.cat, torch.concat, torch.concatenate}


def unit_groups(module: nn.Module, *example_inputs: Any) -> list[UnitGroup]:
    """Return the groups of units of ``module``, in the order in which they are made.

    The module runs in evaluation mode and without gradients, and charges no meter. It is watched: whatever Python does
    in ``forward``, the layers that it calls are found. A layer whose units go anywhere else (into a sum, a layer norm,
    an attention), that is called twice, or that is the output, is no group: it is left alone. Each group is then
    **tried on a copy**: with half of its units removed the copy has to say what it says with these units multiplied by
    0 where they are read; a group of which that is not so is left alone, too. Ways that ``forward`` takes on other
    inputs only are not seen.

    Args:
        module: of any kind; its linear layers are looked at.
        example_inputs: that it takes, such as ``torch.zeros(1, observation_size)``.

    Raises:
        ConfigError: a parametrised or compiled module, whose layers' weights are not what runs; inputs that it does not
            take; or a module that cannot be copied.
    """
    an_instance("module", module, nn.Module, "a torch.nn.Module")
    if any(type(part).__name__ == "OptimizedModule" for part in module.modules()):
        raise ConfigError(
            "the units of a compiled module: expected the module before it is compiled; pass the original"
        )
    layers = {part.weight: (name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    norms = {
        part.running_mean: part
        for part in module.modules()
        if isinstance(part, nn.BatchNorm1d) and part.running_mean is not None
    }
    watching = _Watching(layers, norms)
    with evaluating(module), torch.no_grad(), all_quiet(), watching:
        try:
            module(*example_inputs)
        except (TypeError, RuntimeError, ValueError, IndexError) as error:
            raise ConfigError(
                f"a {type(module).__name__} cannot run on the example inputs ({error}): expected inputs that it takes, "
                "such as torch.zeros(1, observation_size)"
            ) from error
    if layers and not watching.found:
        raise ConfigError(
            f"the units of a {type(module).__name__}: expected its {len(layers)} linear layers to run as they are, and "
            "saw none of them; pass the module before it is compiled or parametrised"
        )
    groups = proved(module, list(watching.groups()), example_inputs)
    readers = [reader for group in groups for reader in group.readers]
    for reader in readers:
        reader.others += [other for other in readers if other.layer is reader.layer and other is not reader]
    return groups


# ---- watching -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Units:
    """What a tensor holds along its last axis: the units of one layer, or several side by side.

    Attributes:
        parts: the weight of the layer whose units they are (``None``: something else), and how many.
    """

    parts: tuple[tuple[Tensor | None, int], ...]

    @property
    def makers(self) -> list[Tensor]:
        """Weights of the layers that have made them."""
        return [maker for maker, _ in self.parts if maker is not None]


@dataclass
class _Found:
    """What is known of one layer's units while the module runs."""

    readers: list[Reader] = field(default_factory=list)
    norms: list[nn.BatchNorm1d] = field(default_factory=list)
    whole: bool = True
    calls: int = 0


class _Watching(TorchFunctionMode):
    """Notes, in the thread that runs the module, which functions are given the units of which layer.

    Args:
        layers: name and linear layer, by weight.
        norms: batch norms, by running mean.
    """

    def __init__(self, layers: Mapping[Tensor, tuple[str, nn.Linear]], norms: Mapping[Tensor, nn.BatchNorm1d]) -> None:
        super().__init__()
        self._layers, self._norms = layers, norms
        self._holds = WeakTensorKeyDictionary()  # _Units of the tensors that have any
        self.found: dict[Tensor, _Found] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func``, and note what it has done with units."""
        kwargs = kwargs or {}
        given = _tensors_in([*args, *kwargs.values()])
        held = [self._holds.get(tensor) for tensor in given]
        result = func(*args, **kwargs)
        weight = (args[1] if len(args) > 1 else kwargs.get("weight")) if func is F.linear else None
        if weight is not None and weight in self._layers:
            self._read(held[0], weight)
            self._holds[result] = _Units(((weight, result.shape[-1]),))
        elif func in _UNITWISE or (func in _MAY_BE and _keeps_units(given[0], result)):
            self._pass(func, held[0], given)
            if held[0] is not None:
                self._holds[result] = held[0]
        elif func in _JOINS and _last_axis(args, kwargs, result):
            parts = [own or _Units(((None, one.shape[-1]),)) for own, one in zip(held, given, strict=True)]
            self._holds[result] = _Units(tuple(part for joined in parts for part in joined.parts))
        elif _tensors_in([result]) and func not in _NO_USE:
            for units in held:
                self._use(units)
            for tensor in _tensors_in([result]):  # it may have been written in place
                self._holds.pop(tensor, None)
        return result

    def _read(self, units: _Units | None, weight: Tensor) -> None:
        reader = self.found.setdefault(weight, _Found())
        reader.calls += 1
        start = 0
        for maker, count in units.parts if units is not None else ():
            if maker is not None:
                self.found[maker].readers.append(Reader(self._layers[weight][1], start))
            start += count

    def _pass(self, func: Any, units: _Units | None, given: Sequence[Tensor]) -> None:
        norm = next((self._norms[one] for one in given if one in self._norms), None)
        if func in _NORMS:
            if norm is None or (units is not None and len(units.parts) > 1):
                self._use(units)
            elif units is not None:
                for maker in units.makers:
                    self.found[maker].norms.append(norm)

    def _use(self, units: _Units | None) -> None:
        for maker in units.makers if units is not None else ():
            self.found[maker].whole = False

    def groups(self) -> Iterator[UnitGroup]:
        """Yield the groups: layers whose units only linear layers have read, none of which ran twice."""
        once = {weight for weight, found in self.found.items() if found.calls == 1}
        for weight in self.found:  # in the order in which they ran
            found, (name, layer) = self.found[weight], self._layers[weight]
            alone = all(reader.layer.weight in once for reader in found.readers)
            if weight in once and alone and found.whole and found.readers:
                yield UnitGroup(name, layer, tuple(found.readers), tuple(dict.fromkeys(found.norms)))


def _tensors_in(values: Sequence[Any]) -> list[Tensor]:
    """Return the tensors among ``values`` and in the lists among them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [one for one in value if isinstance(one, Tensor)]
    return found


def _keeps_units(given: Tensor, result: Any) -> bool:
    """Tell whether a change of shape has left the last axis as it was."""
    return isinstance(result, Tensor) and given.shape[-1:] == result.shape[-1:] and given.numel() == result.numel()


def _last_axis(args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor) -> bool:
    axis = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    return axis in (-1, result.dim() - 1)


__all__ = ["Reader", "UnitGroup", "chain_group", "unit_groups"]
