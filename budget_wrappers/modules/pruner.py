"""Pruning the weights of a module by magnitude while another library trains it, through torch's optimizer hooks.

Source: PolyPrune of "Eau De Q-Network: Adaptive Distillation of Neural Networks in Deep RL". ``ScheduledMasks`` holds
the masks; this file decides when they grow and when they are multiplied into the weights.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from budget_wrappers.arguments import a_count, a_function, a_number, an_instance, refuse
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.sparsity import Distribution, PolynomialSchedule
from budget_wrappers.modules.masks import ScheduledMasks, masked_layers

Layers = Mapping[str, nn.Module]


class Pruner:
    """Prune the weights of a module by magnitude while any training loop steps its optimizer.

    The constructor registers a hook before and a hook after ``optimizer.step()``; the code of the loop stays as it is.
    Masks of 0 and 1 grow every ``every`` steps, from the weights *before* the step, and are multiplied into the weights
    *after* each step, so that pruned weights are exactly 0 between two steps. A pruned weight stays pruned. Biases are
    kept, and the module remains an ordinary one: copies, checkpoints and exports contain zeros.

    The share of the run at the n-th step is ``n/total_steps``, or the value of ``progress()`` before the step. The
    first step whose share is at least ``schedule.end`` grows the masks in any case. If a run ends before, the masks
    keep the sparsity that they have; ``finish()`` completes them.

    The optimizer's moments of pruned weights need no care: masks only grow, and Adam, SGD and RMSprop update each
    weight from its own gradient and its own moments. Norms over all gradients, as in ``clip_grad_norm_``, still include
    the gradients of pruned weights.

    A Pruner belongs to one optimizer object. If a library replaces the optimizer (``load`` of Stable-Baselines3 builds
    a new model), make a new Pruner with it and load the old one's ``state_dict()``. Copies and pickles of the optimizer
    have no hooks.

    Args:
        module: whose linear layers and convolutions are pruned, on the device on which it trains. All its layers are
            pruned at this optimizer's steps, including layers that the optimizer does not step.
        optimizer: any torch optimizer that steps weights of the module. It may step other parameters as well, and
            ``step(closure)`` works.
        schedule: of the sparsity of all weights of the module together. With ``final=0`` no number of the training
            changes.
        total_steps: steps of the optimizer in the whole run; or give ``progress``.
        every: optimizer steps between two growths of the masks.
        distribution: shares of the layers, see ``budget_wrappers.functional.sparsity.Distribution``.
        example_inputs: that the module takes, such as ``torch.zeros(1, observation_size)``; several in a tuple. With
            them ``effective_sparsity`` is known, and masks that would leave no path from an input to an output do not
            grow (``ComputeWarning``).
        progress: function that returns the share of the run that is over, for loops that do not know the number of
            their optimizer steps.
        targets: modules of the same structure that follow this one, such as target networks. The masks are multiplied
            into their weights too, after each step. Without it their pruned weights decay as they follow.

    Attributes:
        masks: see ``ScheduledMasks``.
        steps: steps of the optimizer so far.
        module, optimizer, total_steps, every: as given.

    Raises:
        ConfigError: a module without layers to prune, whose weights the optimizer does not step, that is compiled,
            parametrised or lazy, or that another Pruner prunes at this optimizer; a target of another structure; both
            or neither of ``total_steps`` and ``progress``; a value out of bounds.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
        >>> optimizer = torch.optim.Adam(network.parameters())
        >>> schedule = PolynomialSchedule(start=0.2, end=0.8, final=0.9)
        >>> with Pruner(network, optimizer, schedule, total_steps=100, every=10) as pruner:
        ...     for _ in range(100):
        ...         x = torch.randn(32, 3)
        ...         loss = (network(x) - x[:, :1]).square().mean()
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
        >>> pruner.complete, round(pruner.sparsity, 2), int(network[0].weight.count_nonzero())
        (True, 0.9, 13)
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: PolynomialSchedule,
        *,
        total_steps: int | None = None,
        every: int = 1_000,
        distribution: Distribution = "erk",
        example_inputs: Any = (),
        progress: Callable[[], float] | None = None,
        targets: nn.Module | Sequence[nn.Module] = (),
    ) -> None:
        an_instance("module", module, nn.Module, "a torch.nn.Module")
        an_instance("optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer that steps the module")
        if (total_steps is None) == (progress is None):
            refuse(
                "total_steps",
                total_steps,
                f"either total_steps or progress, with progress={progress!r}; pass total_steps=… if the number of "
                "optimizer steps is known, else progress=… and not both",
            )
        self.total_steps = None if total_steps is None else a_count("total_steps", total_steps, least=1)
        self.every = a_count("every", every, least=1)
        self._progress = a_function("progress", progress, optional=True)
        _require_prunable(module, optimizer)
        followers = _followers(module, targets)
        inputs = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
        self.masks = ScheduledMasks(module, schedule, distribution, inputs)
        self.module, self.optimizer, self.steps = module, optimizer, 0
        self._followers, self._begun = followers, False
        self._handles: list[Any] = []
        self.install()

    # ---- what there is ----------------------------------------------------------------------------------------------

    @property
    def sparsity(self) -> float:
        """Share of the module's weights that are pruned, without biases."""
        return sum(int(zeros) for zeros in self.masks.zeros()) / sum(map(math.prod, self.masks.shapes))

    @property
    def effective_sparsity(self) -> float | None:
        """Share of the weights that lie on no path from an input to an output; ``None`` without example inputs.

        It is at least ``sparsity``: a kept weight carries nothing of the input if all weights that lead to it, or from
        it, are pruned.
        """
        return self.masks.effective_sparsity()

    @property
    def complete(self) -> bool:
        """Whether the masks have grown at the end of the schedule."""
        return bool(self.masks.complete)

    @property
    def installed(self) -> bool:
        """Whether the hooks are on the optimizer."""
        return bool(self._handles)

    # ---- on the optimizer -------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Register the hooks, as the constructor does; for a Pruner whose hooks were removed.

        Raises:
            ConfigError: another Pruner prunes weights of the module at this optimizer.
        """
        if self._handles:
            return
        own = _weights(masked_layers(self.module))
        for hook in self.optimizer._optimizer_step_pre_hooks.values():
            other = getattr(hook, "__self__", None)
            if isinstance(other, Pruner) and own & _weights(masked_layers(other.module)):
                raise ConfigError(
                    f"a {type(self.module).__name__} whose weights another Pruner prunes, at step {other.steps}: "
                    "expected one Pruner of a module; use that one, or call its remove() first"
                )
        self._begun = False
        self._handles = [
            self.optimizer.register_step_pre_hook(self._before_step),
            self.optimizer.register_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Take the hooks off the optimizer. Weights, masks and counts stay as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> "Pruner":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()

    def finish(self) -> None:
        """Complete the masks now, from the weights as they are, and multiply them into the weights."""
        if not self.complete:
            self.masks.grow(1.0, due=True)
        self._apply()

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # A step may begin twice: after a closure that raised, and in a subclass that calls super().step(), as torch
        # runs the hooks of both. It counts once, and to grow twice to the same sparsity changes nothing.
        self._begun = True
        progress = self._share()
        due = (self.steps + 1) % self.every == 0
        if due or progress >= self.masks.schedule.end:
            self.masks.grow(progress, due)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.steps += self._begun
        self._begun = False
        self._apply()

    def _share(self) -> float:
        """Return the share of the run that is over with the step that begins."""
        if self._progress is None:
            return (self.steps + 1) / self.total_steps
        return a_number("progress()", self._progress(), "the share of the run that is over, a number in [0, 1]")

    @torch.no_grad()
    def _apply(self) -> None:
        self.masks.apply_()
        for layers in self._followers:
            masks = [self.masks.get_buffer(name) for name in layers]
            torch._foreach_mul_([layer.weight for layer in layers.values()], masks)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the masks and the number of steps; the weights are in the module's own state."""
        return {"steps": self.steps, "masks": {name: own.clone() for name, own in self.masks.state_dict().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned, of a Pruner of the same layers; the weights stay as they are.

        Raises:
            ConfigError: a damaged state, or one of other layers; nothing has changed then.
        """
        masks = state.get("masks") if isinstance(state, Mapping) else None
        steps = state.get("steps") if isinstance(state, Mapping) else None
        if not isinstance(masks, Mapping) or not all(isinstance(own, Tensor) for own in masks.values()):
            refuse("state", state, "what state_dict() returned, with 'steps' and 'masks'")
        steps = a_count("the state's steps", steps)
        expected = {name: tuple(own.shape) for name, own in self.masks.state_dict().items()}
        given = {name: tuple(own.shape) for name, own in masks.items()}
        if given != expected:
            raise ConfigError(
                f"a state with masks of {given}: expected {expected}; load the state of a Pruner of the same module"
            )
        for name, own in masks.items():
            if not bool(((own == 0) | (own == 1)).all()):
                raise ConfigError(
                    f"a state whose mask {name} has other numbers than 0 and 1: expected 0 at pruned weights and 1 "
                    "elsewhere; the state is damaged, take another copy"
                )
        self.masks.load_state_dict(masks)
        self.steps = steps


def _weights(layers: Layers) -> set[Tensor]:
    return {layer.weight for layer in layers.values()}


def _require_prunable(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise unless masks can be multiplied into the weights that run, and the optimizer steps some of them."""
    if any(type(part).__name__ == "OptimizedModule" for part in module.modules()):
        raise ConfigError(
            f"masks of a compiled {type(module).__name__}: expected the module before it is compiled; pass the original"
        )
    layers = masked_layers(module)
    for name, layer in layers.items():
        weight = layer._parameters.get("weight")
        if weight is None:
            raise ConfigError(
                f"the weight of {name.removeprefix('of_')}, {layer}, is computed from other tensors: expected a plain "
                "parameter; remove parametrisations first (torch.nn.utils.parametrize.remove_parametrizations, "
                "torch.nn.utils.prune.remove)"
            )
        if is_lazy(weight):
            raise ConfigError(
                f"the weight of {name.removeprefix('of_')}, {layer}, has no shape yet: expected a module that has run; "
                "run the module once before you make the optimizer and the Pruner"
            )
    stepped = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    if layers and not stepped & _weights(layers):
        raise ConfigError(
            f"optimizer={type(optimizer).__name__} of {len(stepped)} parameters: expected weights of the "
            f"{type(module).__name__} among them; pass the optimizer that steps the module"
        )


def _followers(module: nn.Module, targets: nn.Module | Sequence[nn.Module]) -> list[Layers]:
    """Return the layers of each target, by the names of the module's masks."""
    if not isinstance(targets, nn.Module | list | tuple):
        refuse("targets", targets, "a torch.nn.Module that follows the pruned module, or a list of such modules")
    expected = {name: tuple(layer.weight.shape) for name, layer in masked_layers(module).items()}
    found = []
    for target in [targets] if isinstance(targets, nn.Module) else targets:
        an_instance("targets", target, nn.Module, "torch modules that follow the pruned module")
        layers = masked_layers(target)
        shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
        if shapes != expected:
            raise ConfigError(
                f"a target {type(target).__name__} with layers of {shapes}: expected {expected}, those of the pruned "
                f"{type(module).__name__}; pass a network of the same structure, such as a copy"
            )
        found.append(layers)
    return found


__all__ = ["Pruner"]
