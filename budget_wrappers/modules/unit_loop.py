"""Pruning the units of a network while a training loop that somebody else wrote trains it.

Source: "Online Training and Pruning of Deep Reinforcement Learning Networks" (XiNet). ``UnitPruner`` has the
mathematics; here it meets a loop of ``loss.backward()`` and ``optimizer.step()``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from budget_wrappers.arguments import a_count, a_number, an_instance, refuse
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.units import RATE, rate_for
from budget_wrappers.modules.moments import follow_removal, require_followable
from budget_wrappers.modules.surgery import Kept
from budget_wrappers.modules.unit_groups import Reader, UnitGroup, unit_groups
from budget_wrappers.modules.unit_pruning import Stage, UnitPruner, UnitSchedule, flops_at_most, parameters_at_most
from budget_wrappers.modules.units import UnitGates


class UnitPruning:
    """Prune the hidden units of a network while your loop trains it.

    Each hidden unit is multiplied by ``ξ ~ Bernoulli(θ)`` in the passes that a loss differentiates, and by θ in every
    other pass. θ start at 1 and learn by their own Adam from the gradients that your ``loss.backward()`` leaves, and
    from the price of the network's size. Units of a small θ are removed while training goes on; at the end each unit is
    there or gone, no gate is left, and the size is the one asked for.

    Call ``step()`` after each ``optimizer.step()``, or let the optimizer call it:
    ``optimizer.register_step_post_hook(pruning.hook)``. Your ``optimizer.zero_grad()`` need not know θ.

    Args:
        module: any torch module; see ``unit_groups`` for the layers whose units can be pruned. It has to be in training
            mode when a loss differentiates it, and gradients off or evaluation mode when it acts.
        optimizer: that steps the module: Adam, AdamW, SGD, RMSprop, or one that keeps its state as these do. A loss
            that is scaled for mixed precision (``GradScaler``) reaches θ scaled.
        example_inputs: that the module takes, such as ``torch.zeros(1, observation_size)``; several in a tuple.
        total_updates: steps of the optimizer in the whole run.
        max_parameters: that the module may have in the end, biases included.
        max_flops: of its linear layers for one row in the end, ``matmul`` convention, instead of ``max_parameters``.
        penalty: ν, what one parameter (FLOP) costs in the unit of the loss; with a limit, where ν begins, 1e-7 by
            default.
        targets: modules of the same structure that follow this one, which lose the same units. Call ``follow_targets``
            where their weights follow.
        groups: units to prune, in the place of all that are found; see ``unit_groups`` and ``chain_group``.
        alike: numbers of groups that have to keep as many units as each other.
        schedule: when θ learn and units are removed.
        learning_rate: of θ; ``"auto"`` for 3e-4, or up to .05 in a short run, so that θ can travel from 1 to 0 ten
            times.
        generator: of the draws, on the module's device; by default torch's own.

    Attributes:
        pruner: see ``UnitPruner``.
        updates: steps so far.
        total_updates: as given.

    Raises:
        InfeasibleBudgetError: the smallest network is larger than the limit.
        ConfigError: no hidden units, neither limit nor penalty, an optimizer that does not step the module, a target of
            another structure, or a value out of bounds.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
        >>> optimizer = torch.optim.Adam(network.parameters())
        >>> pruning = UnitPruning(network, optimizer, torch.zeros(1, 3), total_updates=100, max_parameters=41)
        >>> for _ in range(100):
        ...     x = torch.randn(32, 3)
        ...     loss = (network(x) - x[:, :1]).square().mean()
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        ...     _ = pruning.step()
        >>> pruning.parameters <= 41, network[0].out_features <= 8
        (True, True)
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        example_inputs: Any = (),
        *,
        total_updates: int,
        max_parameters: float | None = None,
        max_flops: float | None = None,
        penalty: float | None = None,
        targets: nn.Module | Sequence[nn.Module] = (),
        groups: Sequence[UnitGroup] | None = None,
        alike: Sequence[Sequence[int]] = (),
        schedule: UnitSchedule | None = None,
        learning_rate: float | Literal["auto"] = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        an_instance("module", module, nn.Module, "a torch.nn.Module")
        an_instance("optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer that steps the module")
        an_instance("schedule", schedule, UnitSchedule, "a UnitSchedule", optional=True)
        an_instance("generator", generator, torch.Generator, "a torch.Generator", optional=True)
        self.total_updates = a_count("total_updates", total_updates, least=1)
        if learning_rate != "auto":
            a_number("learning_rate", learning_rate, "'auto' or a number above 0", lambda number: number > 0)
        stepped = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        inputs = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
        groups = list(unit_groups(module, *inputs) if groups is None else groups)
        _require_stepped(groups, stepped, optimizer)
        followers = [targets] if isinstance(targets, nn.Module) else list(targets)
        self.module, self.optimizer, self._rate = module, optimizer, learning_rate
        self.updates = self._periods = 0
        self.pruner = UnitPruner(
            module,
            groups,
            [mirrored(groups, module, target) for target in followers],
            _limit(max_parameters, max_flops, penalty),
            1e-7 if penalty is None else penalty,
            schedule,
            alike,
            generator,
        )
        self._theta = torch.optim.Adam(self.gates.theta, lr=RATE if learning_rate == "auto" else learning_rate)

    # ---- what there is ----------------------------------------------------------------------------------------------

    @property
    def gates(self) -> UnitGates:
        """θ of each group, ``gates.theta``."""
        return self.pruner.gates

    @property
    def stage(self) -> Stage:
        """``"untouched"`` before θ learn, ``"learning"``, then ``"fixed"``: no gate is left."""
        return self.pruner.stage

    @property
    def units(self) -> list[int]:
        """How many units each group has now."""
        return self.gates.counts()

    @property
    def parameters(self) -> int:
        """How many parameters the module has now."""
        return int(self.pruner.size.parameters(self.units))

    # ---- in the loop ------------------------------------------------------------------------------------------------

    def step(self, progress: float | None = None, remove: bool = True) -> Kept | None:
        """Let θ take their step and do what is due, after a step of the optimizer.

        Args:
            progress: share of the run that is over; by default counted from ``total_updates``.
            remove: whether gates are put on and units are removed now; else where you call ``remove_due``.

        Returns:
            What is left of each parameter if units were removed: the optimizer has followed, as targets have; averages
            of your own have to (``follow_removal`` for a second optimizer). Else ``None``.

        Raises:
            ConfigError: θ learn and no loss has reached them; the optimizer's state cannot follow a removal.
        """
        self.updates += 1
        if progress is None:
            progress = self.updates / self.total_updates
        if self.stage == "learning":
            self._step_thetas()
            self.pruner.follow_size(progress)
        return self.remove_due(progress) if remove else None

    def remove_due(self, progress: float) -> Kept | None:
        """Begin, remove units or end, whatever is due; see ``step``."""
        if self.stage == "untouched" and progress >= self.pruner.schedule.start:
            self._begin(progress)
        periods = self.updates // self.pruner.schedule.prune_every
        due, self._periods = periods > self._periods, periods
        return self._followed(self.pruner.advance(progress, 0 if due else 1))

    def hook(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Call ``step()``: for ``optimizer.register_step_post_hook``."""
        self.step()

    def finish(self) -> Kept | None:
        """Decide now which units stay, as at the end of the schedule."""
        return None if self.stage == "fixed" else self._followed(self.pruner.fix())

    def follow_targets(self, tau: float = 1.0) -> None:
        """Let the targets' θ move as their weights do, ``θ̄ ← (1 − τ)·θ̄ + τ·θ``."""
        a_number("tau", tau, "a share in [0, 1]", lambda number: 0 <= number <= 1)
        self.pruner.follow_targets(tau)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Multiply by θ inside and draw nothing: for a loss of another network that is differentiated through this one.

        An actor's loss runs through its critic: without this, it would leave its gradients on the critic's θ.
        """
        self.gates.learn(False)
        try:
            yield
        finally:
            self.gates.learn(self.stage == "learning")

    def _step_thetas(self) -> None:
        thetas = list(self.gates.theta)
        if all(theta.grad is None for theta in thetas):
            raise ConfigError(
                f"no gradient has reached θ of the {sum(self.units)} units since the step before: expected a loss of "
                f"the {type(self.module).__name__} in training mode; call module.train() before the loss, and step() "
                "once after each loss.backward() and optimizer.step()"
            )
        for theta, slope in zip(thetas, self.pruner.slopes(), strict=True):
            theta.grad = slope if theta.grad is None else theta.grad.add_(slope)
        self._theta.step()
        for theta in thetas:
            theta.data.clamp_(0.0, 1.0)
            theta.grad = None

    def _begin(self, progress: float) -> None:
        require_followable(self.optimizer, self.module.parameters())
        if self._rate == "auto":
            to_come = self.total_updates * (self.pruner.schedule.end - progress)
            self._theta.param_groups[0]["lr"] = rate_for(to_come)

    def _followed(self, kept: Kept | None) -> Kept | None:
        if not kept:
            return None
        follow_removal(self.optimizer, kept)
        follow_removal(self._theta, kept)
        return kept

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return θ, their optimizer's state, the stage, and how many units there are."""
        return {
            "updates": self.updates,
            "units": self.units,
            "theta": [theta.detach().clone() for theta in self.gates.theta],
            "targets": [[theta.detach().clone() for theta in own.theta] for own in self.pruner.target_gates],
            "optimizer": self._theta.state_dict(),
            "pruner": self.pruner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` returned.

        Call it first: it cuts module, targets and the optimizer's state to the sizes that they had. Then load theirs.

        Raises:
            ConfigError: of another network, or of one with more units than there are now, or damaged; nothing has
                changed then.
        """
        targets = self.pruner.target_gates
        self._require_state(state)
        units = list(state["units"])
        fewer = len(units) == len(self.units) and all(map(int.__le__, units, self.units))
        if not fewer or len(state["targets"]) != len(targets):
            raise ConfigError(
                f"a state of {units} units with {len(state['targets'])} targets: expected at most {self.units} with "
                f"{len(targets)}; make the module and its UnitPruning as they were when the run began"
            )
        for thetas in (state["theta"], *state["targets"]):
            if [len(theta) for theta in thetas] != units:
                raise ConfigError(
                    f"a state of {units} units with θ of {[len(theta) for theta in thetas]}: expected one for each "
                    "unit; it was damaged, take another copy"
                )
        self._followed(self.pruner.keep([torch.arange(count) for count in units]))
        for gates, thetas in zip((self.gates, *targets), (state["theta"], *state["targets"]), strict=True):
            for theta, value in zip(gates.theta, thetas, strict=True):
                theta.data.copy_(value)
        self._theta.load_state_dict(state["optimizer"])
        self.pruner.load_state_dict(state["pruner"])
        self.updates = int(state["updates"])
        self._periods = self.updates // self.pruner.schedule.prune_every

    def _require_state(self, state: Any) -> None:
        """Raise unless ``state`` has the form that ``state_dict`` gives it."""
        keys = {"units", "theta", "targets", "optimizer", "pruner", "updates"}
        sound = isinstance(state, Mapping) and keys <= state.keys()
        if sound:
            counts, updates = state["units"], state["updates"]
            every = [state["theta"], *(state["targets"] if isinstance(state["targets"], list | tuple) else [None])]
            sound = (
                isinstance(counts, list | tuple)
                and all(type(count) is int and count >= 1 for count in counts)
                and all(isinstance(own, list | tuple) and all(isinstance(t, Tensor) for t in own) for own in every)
                and type(updates) is int
                and updates >= 0
                and isinstance(state["optimizer"], Mapping)
                and isinstance(state["pruner"], Mapping)
            )
        if not sound:
            raise ConfigError(
                f"a state of {str(state)[:100]}: expected what state_dict() returned, with {', '.join(sorted(keys))}"
            )


def mirrored(groups: Sequence[UnitGroup], module: nn.Module, target: nn.Module) -> list[UnitGroup]:
    """Return the groups of ``target``, a network like ``module``, that have the same names as ``groups``.

    Raises:
        ConfigError: a target of another structure.
    """
    an_instance("targets", target, nn.Module, "torch modules that follow the network")
    names = {part: name for name, part in module.named_modules()}
    parts = dict(target.named_modules())

    def counterpart(part: nn.Module) -> Any:
        found = parts.get(names.get(part, ""))
        if type(found) is not type(part) or getattr(found, "weight", part.weight).shape != part.weight.shape:
            raise ConfigError(
                f"a target {type(target).__name__} without a counterpart of {names.get(part)!r}, {part}: expected a "
                "network of the same structure, such as a copy; deepcopy the network before it is pruned"
            )
        return found

    return [
        UnitGroup(
            group.name,
            counterpart(group.maker),
            tuple(Reader(counterpart(reader.layer), reader.start) for reader in group.readers),
            tuple(counterpart(norm) for norm in group.norms),
        )
        for group in groups
    ]


def _limit(max_parameters: float | None, max_flops: float | None, penalty: float | None) -> Any:
    if max_parameters is not None and max_flops is not None:
        refuse("max_flops", max_flops, f"None beside max_parameters={max_parameters}: one limit")
    if max_parameters is None and max_flops is None and penalty is None:
        raise ConfigError("no max_parameters, max_flops or penalty: expected one of them, which says how small")
    for name, most in (("max_parameters", max_parameters), ("max_flops", max_flops)):
        if most is not None:
            a_number(name, most, "a size above 0, or None", lambda number: number > 0)
    if max_flops is not None:
        return flops_at_most(max_flops)
    return None if max_parameters is None else parameters_at_most(max_parameters)


def _require_stepped(groups: Sequence[UnitGroup], stepped: set[Tensor], optimizer: torch.optim.Optimizer) -> None:
    for group in groups:
        an_instance("groups", group, UnitGroup, "groups of units, as unit_groups and chain_group return them")
        if group.maker.weight not in stepped:
            raise ConfigError(
                f"optimizer={type(optimizer).__name__} of {len(stepped)} parameters: expected the weight of "
                f"{group.name or 'each layer'} among them, so that its moments follow; pass the optimizer that steps "
                "the module, or groups=[…] of the layers that it steps"
            )


__all__ = ["UnitPruning", "mirrored"]
