"""A budget method: an object that an agent holds and asks at fixed places. It is written once and given to any agent.

Every member may be left as it is. An agent never learns a method's name; a method learns what it needs to know of an
agent from ``agent.says`` (what the output of the actor means) and from the agent's public members. Each member is
called with the agent, so a method holds no agent, and one object belongs to one agent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import Settings, check_types
from agents.loop.collect import Step
from agents.nets.kept import Kept
from agents.replay.buffers import Batch
from budget_wrappers.errors import ConfigError

Role = Literal["actor", "critic"]
Says = Literal["moments", "actions", "values"]
"""What the output of an agent's actor means: means and log standard deviations, actions before the squash, values."""


@dataclass(frozen=True)
class MethodConfig(Settings):
    """Base of the configurations of methods: every value is checked against its annotation."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass
class ActorPass:
    """What the losses of an actor were made of.

    Attributes:
        batch: of the update.
        losses: of the sub-policies, ``(K,)``.
        output: what the actor said: ``Moments``, actions ``(K, B, A)`` or values ``(K, B, A)``.
        said: the record of a network that says more than its output, else ``None``; see ``agents.nets.said``.
        worth: returns what each sub-policy's choice is worth, ``(K, B)``; computed when called.
        imitates: whether the losses are those of imitating data, which every sub-policy does alike.
        error: of values, ``(K, B)``, from which priorities follow; a method may replace it.
    """

    batch: Batch
    losses: Tensor
    output: Any
    said: Any
    worth: Callable[[], Tensor]
    imitates: bool = False
    error: Tensor | None = None


class Method:
    """Base of the methods.

    Args:
        settings: keys of ``config_class``.

    Attributes:
        config: of the method.

    Raises:
        ConfigError: an unknown key or a value out of bounds.
    """

    name: ClassVar[str]
    """Of the method: in checkpoints, on the command line, in messages."""
    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    taken: bool = False
    """Whether an agent holds the method, which then is that agent's alone."""
    one_target: ClassVar[bool] = False
    """Whether the losses of values that ``descend`` asks for are all towards one target, computed before."""
    offers: ClassVar[tuple[str, ...]] = ()
    """Members of the method that its agent has, too: ``agent.x`` is ``method.x``, a function without its first argument
    where that is ``agent``, of an ``answer`` its value."""

    def __init__(self, **settings: Any) -> None:
        self.config = self.config_class.of(settings)

    def record(self) -> dict[str, Any]:
        """Return name and settings as plain data, from which a checkpoint or run makes the method again."""
        return {"name": self.name, "settings": self.config.to_dict()}

    # ---- making an agent --------------------------------------------------------------------------------------------

    def require(self, agent: Any, env: Any) -> None:
        """Raise unless the method can do its work with this agent and environment; asked before anything is made."""

    def network(self, agent: Any, role: Role) -> Callable[..., nn.Module] | None:
        """Return what makes the actor or the critic, ``(observation size, action size, config) -> module``, if any."""
        return None

    def build(self, agent: Any) -> None:
        """Make what the method needs, after the agent's networks and optimizers were made, under the agent's seed."""

    def start_metering(self, agent: Any) -> int | None:
        """Return the most that one action costs, where the method acts in place of the whole actor, else ``None``."""
        return None

    def optimizers(self, agent: Any, own: Mapping[str, torch.optim.Optimizer]) -> Mapping[str, torch.optim.Optimizer]:
        """Return the agent's optimizers by name, given those of the agent and of the methods before."""
        return own

    def modules(self, agent: Any) -> Mapping[str, nn.Module]:
        """Return what tensors of the method a checkpoint holds, by name; they stand under the method's name."""
        return {}

    # ---- learning ---------------------------------------------------------------------------------------------------

    def before_update(self, agent: Any) -> None:
        """Run before each update and outside of it: a batch of the method's own may be drawn here."""

    def critic_losses(self, agent: Any, batch: Batch, losses: Tensor) -> Tensor:
        """Return the losses of the critics ``(M, K)``, given those of the agent and of the methods before.

        Not asked of agents whose one network says values: its losses are the sub-policies'.
        """
        return losses

    def before_actor_update(self, agent: Any) -> None:
        """Run before the actor's losses of an update are computed, however many steps are taken down them."""

    def actor_losses(self, agent: Any, made_of: ActorPass) -> Tensor:
        """Return the losses of the sub-policies ``(K,)``, given ``made_of.losses``."""
        return made_of.losses

    def descend(self, agent: Any, losses: Callable[[], Tensor], max_norm: float | None) -> Tensor | None:
        """Take the actor's gradient steps and return their loss; ``None``: the agent takes one down the losses' sum.

        Args:
            agent: whose actor learns.
            losses: returns the losses ``(K,)`` of a new forward pass, whenever called.
            max_norm: bound of the gradient's Euclidean norm, ``None`` for none.
        """
        return None

    def descend_critics(self, agent: Any, losses: Callable[[], Tensor]) -> Tensor | None:
        """Take the critics' gradient steps and return their loss; ``None``: the agent takes one down the loss.

        Args:
            agent: whose critics learn.
            losses: returns the loss of a new forward pass of the critics, whenever called; the target stays.
        """
        return None

    def before_target(self, agent: Any) -> None:
        """Run before a target network becomes, or moves towards, the network that says values."""

    def after_target(self, agent: Any) -> None:
        """Run after the target networks have moved."""

    def after_update(self, agent: Any) -> None:
        """Run after each update; products that are computed here go into ``with agent.learning(…):``."""

    def after_learning(self, agent: Any) -> None:
        """Run when ``learn`` has taken all the steps that it was asked for, before callbacks are told."""

    def update_kind(self, agent: Any) -> str:
        """Return a name for the work that the next update does for the method; updates of one kind cost the same."""
        return ""

    # ---- acting -----------------------------------------------------------------------------------------------------

    def before_acting(self, agent: Any, observation: np.ndarray) -> None:
        """Run before the actions of a training step are chosen, for ``observation`` ``(n, O)``."""

    def act(self, agent: Any, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return the actor's output ``(n, outputs)``, or of several sub-policies ``(K, n, outputs)``; metered.

        Asked only where ``start_metering`` has returned a cost.
        """
        raise NotImplementedError

    def flops_of_last_action(self, agent: Any) -> int:
        """Return what the last ``act`` cost, over all rows."""
        raise NotImplementedError

    def acting_counts(self, agent: Any) -> Sequence[np.ndarray]:
        """Return arrays that count who acted, in place: evaluations put them back."""
        return ()

    def after_acting(self, agent: Any, action: np.ndarray) -> None:
        """Run after the actions of a training step were chosen, ``(n, …)`` as the replay stores them."""

    def after_storing(self, agent: Any, step: Step) -> None:
        """Run after the transitions of a step were put into the replay."""

    # ---- changes and accounts ---------------------------------------------------------------------------------------

    def structure_changed(self, agent: Any, kept: Kept | None = None) -> None:
        """Follow, after layers of the agent's networks have changed size: costs, engines, masks.

        Args:
            agent: whose networks have changed.
            kept: what is left of each parameter, where the caller has said; see ``surgery.keep_units``.
        """

    def before_env(self, agent: Any, env: Any) -> Callable[[], None]:
        """Check another environment before the agent takes it; return what is to be done afterwards."""
        return lambda: None

    def metrics(self, agent: Any) -> Mapping[str, Tensor]:
        """Return what joins the metrics of an update."""
        return {}

    def logged(self, agent: Any) -> Mapping[str, Tensor]:
        """Return what is logged, read only when asked for."""
        return {}

    def spending(self, agent: Any, shares: Mapping[str, float]) -> Mapping[str, float]:
        """Return what steps shared like ``Evaluation.shares`` cost in the method's own terms."""
        return {}

    def plain_state(self, agent: Any) -> Mapping[str, Any]:
        """Return further state for checkpoints, as JSON-able data; no other method or agent has a key of that name."""
        return {}

    def load_plain_state(self, agent: Any, state: Mapping[str, Any]) -> None:
        """Take back what ``plain_state`` returned."""


class answer:  # noqa: N801  it reads like property
    """A property that needs the agent: ``@answer`` over a function of method and agent."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, method: Any, owner: type | None = None) -> Any:
        return self if method is None else lambda agent: self.function(method, agent)


def checked_methods(methods: Sequence[Method]) -> tuple[Method, ...]:
    """Return ``methods`` as a tuple.

    Raises:
        ConfigError: one is not a method, or two have the same name.
    """
    if not isinstance(methods, Method | Iterable) or isinstance(methods, str | bytes | Mapping):
        raise ConfigError(f"methods={methods!r}: expected a list of methods, such as [PolyPrune(final=0.9)]")
    methods = (methods,) if isinstance(methods, Method) else tuple(methods)
    for method in methods:
        if not isinstance(method, Method):
            raise ConfigError(f"methods={methods!r}: expected objects such as PolyPrune(final=0.9), not {method!r}")
    names = [method.name for method in methods]
    if len(set(names)) < len(names):
        raise ConfigError(f"the methods {', '.join(names)}: expected each once; leave one of them out")
    return methods


def free_methods(methods: Sequence[Method]) -> tuple[Method, ...]:
    """Return ``methods`` as a tuple, none of which an agent holds yet.

    Raises:
        ConfigError: see ``checked_methods``; a method was given to another agent before.
    """
    methods = checked_methods(methods)
    for method in methods:
        if method.taken:
            raise ConfigError(
                f"the method {method.name} was given to an agent before, {method!r}: expected an object of its own for "
                f"each agent; make another {type(method).__name__}(…)"
            )
    return methods


def overriding(methods: Sequence[Method], member: str) -> tuple[Method, ...]:
    """Return those of ``methods`` that have a ``member`` of their own."""
    return tuple(method for method in methods if getattr(type(method), member) is not getattr(Method, member))


__all__ = ["ActorPass", "Method", "MethodConfig", "answer", "checked_methods", "free_methods", "overriding"]
