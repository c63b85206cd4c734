"""An agent as it was before something that may fail half-way, such as taking over a checkpoint."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agents.loop.header import COUNTERS
from agents.loop.structure import name_sizes
from budget_wrappers.errors import BudgetError, CheckpointError

DAMAGES = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError)
"""What reading data of another form raises."""


@contextlib.contextmanager
def unharmed(agent: Any, path: str | Path) -> Iterator[None]:
    """Give the agent back as it was if the block raises: networks, optimizers, generators, accounts, counters.

    Args:
        agent: whose state the block may change.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: in place of what reading data of another form raises.
    """
    put_back = _remembered(agent)
    try:
        yield
    except BaseException as error:
        put_back()
        if isinstance(error, DAMAGES) and not isinstance(error, BudgetError):
            raise CheckpointError(
                f"{path} holds data of another form than an agent's ({error!r}): expected a file that `save` wrote; it "
                "was damaged, take another copy"
            ) from error
        raise


def _remembered(agent: Any) -> Callable[[], None]:
    """Return what brings the agent back to its state of now."""
    modules = list(agent.modules.values())
    tensors = [entry for module in modules for entry in _tensors_of(module)]
    optimizers = {name: copy.deepcopy(optimizer.state_dict()) for name, optimizer in agent.optimizers.items()}
    generator, rng = agent.generator.get_state(), copy.deepcopy(agent.rng.bit_generator.state)
    metrics, meter, plain = dict(agent.metrics), agent.meter.state_dict(), copy.deepcopy(agent.plain_state())
    counters = {name: getattr(agent, name) for name in COUNTERS}

    def put_back() -> None:
        with torch.no_grad():
            for holder, name, tensor, values in tensors:
                tensor.copy_(values)
                if name in holder._parameters:
                    holder._parameters[name].data = tensor
                else:
                    holder._buffers[name] = tensor
        for module in modules:
            name_sizes(module)
        agent.structure_changed()
        for name, optimizer in agent.optimizers.items():
            optimizer.load_state_dict(optimizers[name])
        agent.generator.set_state(generator)
        agent.rng.bit_generator.state = rng
        agent.metrics = metrics
        agent.meter.load_state_dict(meter)
        for name, value in counters.items():
            setattr(agent, name, value)
        agent.load_plain_state(plain)

    return put_back


def _tensors_of(module: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor, torch.Tensor]]:
    """Yield each parameter and buffer of ``module``: who holds it, under which name, its memory and its values."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                yield part, name, parameter.data, parameter.data.clone()
        for name, buffer in part._buffers.items():
            if buffer is not None:
                yield part, name, buffer, buffer.clone()
