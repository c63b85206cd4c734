"""Adam with the bookkeeping done once: torch's fused kernel on lists that are built at the first step."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from agents.nets.kept import Kept, kept_moments
from budget_wrappers.errors import ConfigError


class _Lists(NamedTuple):
    """What the kernel takes of one group: parameters, both moments, and the counter of steps, once a parameter."""

    parameters: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    steps: list[Tensor]
    shapes: list[torch.Size]


_shape_of = operator.attrgetter("shape")


class FusedAdam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)``, to the bit, at a third of its overhead for small networks.

    ``Optimizer.step`` walks over groups, states and hooks at every call, which costs more than the update of a
    control policy's weights. All parameters of a group step together, so one step counter serves them.

    Args:
        params: a module, several modules, or parameters; or groups: dictionaries with ``"params"`` (any of these) and,
            where they differ from the other arguments, ``"lr"``, ``"eps"``, ``"max_norm"`` (bound of the Euclidean norm
            of the group's own gradient) and ``"bounds"`` (lowest and highest value that a step leaves in a parameter).
            Parameters that need no gradient are left out, unless no parameter of the group needs one.
        lr: step size.
        eps: added to the root of the second moment.

    Attributes:
        beside: optimizers of other parameters that ``descend`` steps down the same loss, in one backward pass: each has
            ``parameters`` and ``apply(gradients)``.

    Raises:
        ConfigError: at a step, moments of another shape than their parameter's: ``follow`` was not called after the
            parameter changed size.
    """

    def __init__(self, params: Any, lr: float, eps: float = 1e-8) -> None:
        groups = _groups_of(params)
        self._sources: list[tuple[nn.Module, ...] | None] = [_modules_of(group["params"]) for group in groups]
        made = [{**group, "params": _learning(group["params"])} for group in groups]
        super().__init__(made, lr=lr, eps=eps, fused=True)
        self._lists: list[_Lists] | None = None
        self.beside: list[Any] = []

    def descend(self, loss: Tensor, max_norm: float | None = None) -> None:
        """Take one step down ``loss``; its gradients are not left in ``parameter.grad``, whose upkeep costs as much.

        Args:
            loss: a scalar.
            max_norm: bound of the Euclidean norm of the whole gradient, ``None`` for none.
        """
        groups = self.param_groups
        own = groups[0]["params"] if len(groups) == 1 else self.parameters
        if not self.beside:
            gradients = torch.autograd.grad(loss, own)
        else:
            others = [parameter for other in self.beside for parameter in other.parameters]
            every = torch.autograd.grad(loss, [*own, *others], allow_unused=True, materialize_grads=True)
            gradients, rest = every[: len(own)], every[len(own) :]
            for other in self.beside:
                count = len(other.parameters)
                other.apply(rest[:count])
                rest = rest[count:]
        self.apply(gradients if max_norm is None else clipped(gradients, max_norm))

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Update the parameters from ``gradients``, given in their order, group after group.

        Raises:
            ConfigError: moments of another shape than their parameter's.
        """
        made = self.lists
        for parameters, _, _, _, shapes in made:  # all of them before any group steps
            # The kernel reads as many numbers as the parameter has, whatever memory the moments have.
            if list(map(_shape_of, parameters)) != shapes:
                raise _other_shape(parameters, shapes)
        if len(self.param_groups) == 1:
            self._step(self.param_groups[0], made[0], gradients)
            return
        start = 0
        for group, lists in zip(self.param_groups, made, strict=True):
            self._step(group, lists, gradients[start : start + len(lists.parameters)])
            start += len(lists.parameters)

    def _step(self, group: Mapping[str, Any], lists: _Lists, gradients: Sequence[Tensor]) -> None:
        parameters, first, second, steps, _ = lists
        if "max_norm" in group and group["max_norm"] is not None:
            gradients = clipped(gradients, group["max_norm"])
        steps[0].add_(1)
        fused_step(group, parameters, gradients, first, second, steps)
        if "bounds" in group and group["bounds"] is not None:
            low, high = group["bounds"]
            with torch.no_grad():
                for parameter in parameters:
                    parameter.clamp_(low, high)

    @property
    def lists(self) -> list[_Lists]:
        """Parameters, moments and counter of each group, as the kernel takes them; made where there are none yet."""
        if self._lists is None:
            self._lists = [self._lists_of(group) for group in self.param_groups]
        return self._lists

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters from their gradients, as any torch optimizer."""
        value = closure() if closure is not None else None
        self.apply([parameter.grad for parameter in self.parameters])
        return value

    def follow(self, kept: Kept | None = None) -> None:
        """Go on after layers have changed size: moments are kept for the weights that are kept, others start at 0.

        Parameters that were replaced, put in or taken out are found in the modules that the optimizer was made with.
        Those that were put in start with moments of 0.

        Args:
            kept: which rows and columns of each parameter are left, as ``keep_units`` tells; without it they are
                recognised by their values, see ``agents.nets.kept``.
        """
        for group, modules in zip(self.param_groups, self._sources, strict=True):
            before = list(group["params"])
            now = before if modules is None else _learning(modules)
            states = [(old, self.state.pop(old, {})) for old in before]
            for new, (old, state) in zip(*_pairs(now, states), strict=True):
                if state:
                    self.state[new] = kept_moments(old, new, state, kept)
            group["params"] = now
        self._lists = None

    @property
    def parameters(self) -> list[Tensor]:
        """Every parameter, group after group."""
        if len(self.param_groups) == 1:
            return self.param_groups[0]["params"]
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the modules, in which a copy has to find its own parameters."""
        return {**super().__getstate__(), "_sources": self._sources, "beside": self.beside}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lists = None  # copies of an optimizer step their own parameters

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self._lists = None

    def _lists_of(self, group: Mapping[str, Any]) -> _Lists:
        parameters = list(group["params"])
        counter = torch.zeros((), dtype=torch.float32, device=parameters[0].device)
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            else:
                counter.copy_(state["step"])
            state["step"] = counter
        states = [self.state[parameter] for parameter in parameters]
        first, second = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        shapes = list(map(_shape_of, parameters))
        for moments in (first, second):
            if (found := list(map(_shape_of, moments))) != shapes:
                raise _other_shape(parameters, found)
        return _Lists(parameters, first, second, [counter] * len(parameters), shapes)


def fused_step(
    group: Mapping[str, Any],
    parameters: list[Tensor],
    gradients: Sequence[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    steps: list[Tensor],
) -> None:
    """Take one step of Adam by torch's kernel.

    Args:
        group: with the settings, as ``torch.optim.Adam`` names them.
        parameters: changed in place.
        gradients: of the parameters.
        first: moments of the parameters, changed in place.
        second: the same of their squares.
        steps: counter of each parameter, this step included.
    """
    torch._fused_adam_(
        parameters,
        [gradient.contiguous() for gradient in gradients],  # the kernel reads memory, not strides
        first,
        second,
        [],
        steps,
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


def _other_shape(parameters: Sequence[Tensor], moments: Sequence[torch.Size]) -> ConfigError:
    """Return the error for the first of ``parameters`` whose moments have another shape."""
    found = next((p, m) for p, m in zip(parameters, moments, strict=True) if p.shape != m)
    return ConfigError(
        f"a parameter of shape {tuple(found[0].shape)} has moments of shape {tuple(found[1])}: expected the "
        "parameter's; call agent.structure_changed(), or the optimizer's follow(), after layers have changed size"
    )


def _pairs(
    now: Sequence[Tensor], before: Sequence[tuple[Tensor, Any]]
) -> tuple[list[Tensor], list[tuple[Tensor, Any]]]:
    """Return the parameters of now that had a predecessor, and their predecessors: themselves, or those they replaced.

    As many new parameters as old ones are gone have replaced these, in their order; any other number has not.
    """
    stayed = [(new, entry) for new in now for entry in before if entry[0] is new]
    came = [new for new in now if not any(entry[0] is new for entry in before)]
    gone = [entry for entry in before if not any(new is entry[0] for new in now)]
    replaced = list(zip(came, gone, strict=True)) if len(came) == len(gone) else []
    return [new for new, _ in stayed + replaced], [entry for _, entry in stayed + replaced]


def _groups_of(params: Any) -> list[dict[str, Any]]:
    """Return ``params`` as groups, each with what was given for it under ``"params"``."""
    if isinstance(params, nn.Module):
        return [{"params": [params]}]
    given = list(params)
    if given and isinstance(given[0], Mapping):
        return [
            {**group, "params": [own] if isinstance(own := group["params"], nn.Module | Tensor) else list(own)}
            for group in given
        ]
    return [{"params": given}]


def _modules_of(given: Sequence[Any]) -> tuple[nn.Module, ...] | None:
    """Return the modules that were given, ``None`` where parameters were."""
    return tuple(given) if given and all(isinstance(part, nn.Module) for part in given) else None


def _learning(given: Iterable[Any]) -> list[Tensor]:
    """Return the parameters of ``given`` that need a gradient, or all where none does."""
    every = [p for part in given for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    return [parameter for parameter in every if parameter.requires_grad] or every


def clipped(gradients: Sequence[Tensor], max_norm: float) -> Sequence[Tensor]:
    """Return the whole gradient, scaled down to the Euclidean norm ``max_norm`` where it is longer."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return torch._foreach_mul(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
