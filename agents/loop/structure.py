"""The sizes of a network's layers: what a checkpoint says of them, and giving them back before shapes are compared."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from agents.nets.mlp import MLP
from budget_wrappers.errors import BudgetError, CheckpointError
from budget_wrappers.modules.exits import EarlyExitNetwork

Sizes = Mapping[str, Mapping[str, list[int]]]
"""Network -> layer -> inputs and outputs."""


def layer_sizes(module: nn.Module) -> dict[str, list[int]]:
    """Return inputs and outputs of each linear layer of ``module``, by name."""
    layers = ((name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear))
    return {name: [part.in_features, part.out_features] for name, part in layers}


@contextlib.contextmanager
def in_structure(agent: Any, stored: Sizes, tensors: Mapping[str, Tensor], path: str | Path) -> Iterator[None]:
    """Give the agent's layers the sizes that a checkpoint stores; an error inside gives everything back.

    Args:
        agent: whose networks are changed, their weights are undefined until the checkpoint's are put in.
        stored: of the networks that had changed when it was saved.
        tensors: of the checkpoint, whose weights must have these sizes.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: sizes of layers that the agent does not have, or that do not fit each other.
    """
    now = {name: layer_sizes(module) for name, module in agent.own_modules.items()}
    wanted = {name: stored.get(name) or agent.built_sizes[name] for name in now}
    _require_layers(wanted | {name: sizes for name, sizes in stored.items() if name not in now}, now, path)
    if wanted == now:
        yield
        return
    for name, sizes in wanted.items():
        for layer, (inputs, outputs) in sizes.items():
            weight = tensors.get(f"module/{name}/{layer}.weight")
            if weight is None or tuple(weight.shape) != (outputs, inputs):
                raise CheckpointError(
                    f"{path}: the structure says that {name}.{layer} has {inputs} inputs and {outputs} outputs: "
                    f"expected weights of these sizes, found {None if weight is None else tuple(weight.shape)}; the "
                    "file was damaged, take another copy"
                )
    before = {name: [p.data for p in module.parameters()] for name, module in agent.own_modules.items()}
    moments = {name: optimizer.state_dict() for name, optimizer in agent.optimizers.items()}
    try:
        _resize(agent, wanted)
        _require_chains(agent, path)
        _follow(agent, path)
        yield
    except BudgetError:
        for name, module in agent.own_modules.items():
            _set_sizes(module, now[name])
            for parameter, data in zip(module.parameters(), before[name], strict=True):
                parameter.data = data
        agent.structure_changed()
        for name, optimizer in agent.optimizers.items():
            optimizer.load_state_dict(moments[name])
        raise


def _follow(agent: Any, path: str | Path) -> None:
    try:
        agent.structure_changed()
    except BudgetError as error:
        raise CheckpointError(
            f"{path}: the structure does not fit the agent ({error}): expected layers that the agent can follow; the "
            "file was damaged, take another copy"
        ) from error


def _resize(agent: Any, wanted: Sizes) -> None:
    for name, module in agent.own_modules.items():
        _set_sizes(module, wanted[name])
        for layer in (part for part in module.modules() if isinstance(part, nn.Linear)):
            shape = (layer.out_features, layer.in_features)
            if tuple(layer.weight.shape) != shape:
                layer.weight.data = layer.weight.data.new_zeros(shape)
                if layer.bias is not None:
                    layer.bias.data = layer.bias.data.new_zeros(shape[0])


def _set_sizes(module: nn.Module, sizes: Mapping[str, list[int]]) -> None:
    for name, (inputs, outputs) in sizes.items():
        layer = module.get_submodule(name)
        layer.in_features, layer.out_features = inputs, outputs


def _require_layers(wanted: Sizes, now: Sizes, path: str | Path) -> None:
    for name, sizes in wanted.items():
        pairs = sizes.values() if isinstance(sizes, Mapping) else [None]
        whole = all(
            isinstance(pair, list) and len(pair) == 2 and all(type(size) is int and size >= 1 for size in pair)
            for pair in pairs
        )
        if not whole or name not in now or sizes.keys() != now[name].keys():
            raise CheckpointError(
                f"{path}: the structure of {name} is {sizes!r}: expected inputs and outputs of the layers "
                f"{list(now.get(name, ()))}; make the agent with the configuration that it was saved with"
            )


def _require_chains(agent: Any, path: str | Path) -> None:
    """Raise unless each layer has as many inputs as the layer before it has outputs."""
    for name, network in agent.own_modules.items():
        for part in network.modules():
            chain: list[tuple[int, int]] = []
            if isinstance(part, MLP):
                chain = [(a.out_features, b.in_features) for a, b in zip(part.linears, part.linears[1:], strict=False)]
            elif isinstance(part, EarlyExitNetwork):
                width = part.inputs
                for stage, layer in zip(part.stages, part.exits, strict=True):
                    for inner in (own for own in stage if isinstance(own, nn.Linear)):
                        chain.append((width, inner.in_features))
                        width = inner.out_features
                    chain.append((width, layer.in_features))
            if any(outputs != inputs for outputs, inputs in chain):
                raise CheckpointError(
                    f"{path}: the structure of {name} has layers that do not fit each other: {layer_sizes(part)}; "
                    "the file was damaged, take another copy"
                )


__all__ = ["Sizes", "in_structure", "layer_sizes"]
