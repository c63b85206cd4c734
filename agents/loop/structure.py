"""The sizes of a network's layers: what a checkpoint says of them, and giving them back before shapes are compared."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from agents.loop.restoring import RESTORING
from agents.nets.mlp import MLP
from budget_wrappers.errors import BudgetError, CheckpointError
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.surgery import put_data

Sizes = Mapping[str, Mapping[str, list[int]]]
"""Network -> layer -> inputs and outputs."""


def layer_sizes(module: nn.Module) -> dict[str, list[int]]:
    """Return inputs and outputs of each linear layer of ``module``, by name, as its weight has them."""
    layers = ((name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear))
    return {name: [*reversed(part.weight.shape)] for name, part in layers}


def name_sizes(module: nn.Module) -> None:
    """Let each linear layer say the sizes that its weight has, which may have been replaced or cut by hand."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.out_features, part.in_features = part.weight.shape


def take_structure(agent: Any, stored: Sizes, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Give the agent's layers the sizes that a checkpoint stores.

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
    _resize(agent, wanted)
    _require_chains(agent, path)
    _follow(agent, path)


def _follow(agent: Any, path: str | Path) -> None:
    token = RESTORING.set(True)  # weights that a method keeps are about to be read, too
    try:
        agent.structure_changed()
    except BudgetError as error:
        raise CheckpointError(
            f"{path}: the structure does not fit the agent ({error}): expected layers that the agent can follow; the "
            "file was damaged, take another copy"
        ) from error
    finally:
        RESTORING.reset(token)


def _resize(agent: Any, wanted: Sizes) -> None:
    for name, module in agent.own_modules.items():
        _set_sizes(module, wanted[name])
        for layer in (part for part in module.modules() if isinstance(part, nn.Linear)):
            shape = (layer.out_features, layer.in_features)
            if tuple(layer.weight.shape) != shape:
                put_data(layer.weight, layer.weight.data.new_zeros(shape))
                if layer.bias is not None:
                    put_data(layer.bias, layer.bias.data.new_zeros(shape[0]))


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
    """Raise unless each layer has as many inputs as the layer before it has outputs, the first and last as ever."""
    for name, network in agent.own_modules.items():
        built = agent.built_sizes[name]
        joints = getattr(network, "joints", ())
        for prefix, part in network.named_modules():
            if isinstance(part, MLP):
                layers = [(f"{prefix}.{key}".lstrip("."), own) for key, own in part.named_children()]
                linears = [(key, own) for key, own in layers if isinstance(own, nn.Linear)]
                before = [network.get_submodule(maker) for maker, readers in joints if prefix in readers]
                read = before[0].linears[-1].out_features if before else built[linears[0][0]][0]
                outer = [(read, linears[0][1].in_features)]
                if not any(prefix == maker for maker, _ in joints):
                    outer.append((linears[-1][1].out_features, built[linears[-1][0]][1]))
                inner = [(a.out_features, b.in_features) for (_, a), (_, b) in itertools.pairwise(linears)]
            elif isinstance(part, EarlyExitNetwork):
                outer, inner = _exit_chain(part)
            else:
                continue
            if any(outputs != inputs for outputs, inputs in (*outer, *inner)):
                raise CheckpointError(
                    f"{path}: the structure of {name} has layers that do not fit each other, or other inputs and "
                    f"outputs than the agent's: {layer_sizes(part)}; the file was damaged, take another copy"
                )


def _exit_chain(part: EarlyExitNetwork) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return pairs of sizes that have to be the same: of the exits' outputs, and of layers that follow each other."""
    width, inner, last = part.inputs, [], len(part.exits) - 1
    for stage, layer in zip(part.stages, part.exits, strict=True):
        for own in (own for own in stage if isinstance(own, nn.Linear)):
            inner.append((width, own.in_features))
            width = own.out_features
        inner.append((width, layer.in_features))
    return [(own.out_features, part.outputs + (n < last)) for n, own in enumerate(part.exits)], inner


__all__ = ["Sizes", "layer_sizes", "name_sizes", "take_structure"]
