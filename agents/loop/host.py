"""What an agent does with the methods that it holds, and how it follows when layers change size."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import OffPolicyConfig, unknown_key
from agents.loop.metered import MeteredActor
from agents.loop.method import ActorPass, Method, Role, answer, checked_methods, free_methods, overriding
from agents.loop.structure import layer_sizes, name_sizes
from agents.nets.kept import Kept
from agents.nets.optim import FusedAdam
from agents.nets.td import MovingAverage
from agents.replay.buffers import Batch
from budget_wrappers.errors import ConfigError


class MethodHost(MeteredActor):
    """Base of ``OffPolicyAgent``: holds methods, and asks them in the order of their list.

    Attributes:
        methods: held by the agent, those of a preset first.
        followers: called after the structure has changed.
        one_target: whether the gradient steps that a method takes of a network of values share one target.
    """

    config: Any

    # ---- what an agent says -----------------------------------------------------------------------------------------

    @property
    def own_modules(self) -> Mapping[str, nn.Module]:
        """Every network of the agent itself, by name."""
        raise NotImplementedError

    @property
    def own_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Every optimizer of the agent itself, by name."""
        raise NotImplementedError

    @property
    def averages(self) -> Sequence[MovingAverage]:
        """Every moving average of a target network."""
        return ()

    @classmethod
    def preset(cls, config: OffPolicyConfig) -> Sequence[Method]:
        """Return the methods that every agent of this class holds; ``config`` has their keys."""
        return ()

    # ---- holding methods --------------------------------------------------------------------------------------------

    def hold(self, methods: Sequence[Method]) -> None:
        """Hold the preset's methods and ``methods``; called once, before anything is made.

        Raises:
            ConfigError: see ``free_methods``.
        """
        preset = tuple(self.preset(self.config))
        self.methods = free_methods([*preset, *checked_methods(methods)])
        self._in_preset = len(preset)
        self.altering = overriding(self.methods, "critic_losses")
        self._stepping = overriding(self.methods, "descend")
        self._stepping_critics = overriding(self.methods, "descend_critics")
        self.one_target = any(held.one_target for held in self.methods)
        self._makers: dict[Role, Callable[..., Any]] = {}
        self.followers: list[Callable[[], None]] = []
        self._renew_token()

    def __getattr__(self, name: str) -> Any:
        """Return what a method offers under ``name``; asked only where the agent has nothing of that name."""
        for method in self.__dict__.get("methods", ()):
            if name in method.offers:
                found = inspect.getattr_static(type(method), name, None)
                if isinstance(found, answer):
                    return found.function(method, self)
                value = getattr(method, name)
                asks = inspect.ismethod(value) and next(iter(inspect.signature(value).parameters), "") == "agent"
                return functools.partial(value, self) if asks else value
        if hasattr(type(self), name):  # a property that has raised AttributeError: let it say why
            return object.__getattribute__(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for held in self.methods for name in held.offers)})

    def method(self, name: str) -> Method:
        """Return the method of that name.

        Raises:
            ConfigError: the agent holds none of that name.
        """
        for held in self.methods:
            if held.name == name:
                return held
        names = ", ".join(held.name for held in self.methods) or "none"
        raise ConfigError(f"{type(self).__name__} holds no method {name!r}: it holds {names}; pass methods=[…]")

    @property
    def methods_given(self) -> dict[str, list[dict[str, Any]]]:
        """The methods that the agent was given besides those of its preset, as plain data, by argument."""
        given = [held.record() for held in self.methods[self._in_preset :]]
        return {"methods": given} if given else {}

    def maker(self, role: Role, given: Callable[..., Any] | None, textbook: Callable[..., Any]) -> Callable[..., Any]:
        """Return what makes a network: a method's function, else the one given, else the textbook's.

        Raises:
            ConfigError: several of them.
        """
        makers = {held.name: maker for held in self.methods if (maker := held.network(self, role)) is not None}
        if given is not None and any(held.name in makers for held in self.methods[: self._in_preset]):
            config = type(self.config)
            raise unknown_key(role, list(config.__dataclass_fields__), config.__name__)
        if len(makers) + (given is not None) > 1:
            names = [*makers, *([f"{role}=…"] if given is not None else [])]
            raise ConfigError(f"{' and '.join(names)} each make the {role}: expected one; leave the others out")
        self._makers[role] = next(iter(makers.values()), given or textbook)
        return self._makers[role]

    def another(self, role: Role) -> Any:
        """Return a new network of a role, made as the agent's own was, with weights of its own."""
        return self._makers[role](*self.network_sizes, self.config).to(self.device)

    @property
    def network_sizes(self) -> tuple[int, int]:
        """Sizes of an observation and of an action, or how many actions there are."""
        actions = int(self.action_space.n) if self.discrete else self.action_space.shape[0]
        return self.observation_shape[0], actions

    def example_inputs(self, name: str) -> list[Tensor]:
        """Return zeros that a network of the agent takes, one row of them.

        Args:
            name: of the network in ``own_modules``; critics also take actions.
        """
        observation_size, action_size = self.network_sizes
        given = [torch.zeros(1, observation_size, device=self.device)]
        return [*given, torch.zeros(1, action_size, device=self.device)] if name.endswith("critic") else given

    # ---- modules and optimizers -------------------------------------------------------------------------------------

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Every network, and what methods keep in tensors, for checkpoints."""
        own = self.own_modules
        extra = {f"{m.name}.{key}": part for m in self.methods for key, part in m.modules(self).items()}
        return {**own, **extra} if extra else own

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Every optimizer, for checkpoints."""
        return functools.reduce(lambda known, held: held.optimizers(self, known), self.methods, self.own_optimizers)

    # ---- losses and steps -------------------------------------------------------------------------------------------

    def critic_total(self, critic: Any, batch: Batch, target: Tensor) -> Tensor:
        """Return ``½ Σ_m Σ_i mean_B (Q_{m,i}(s, a) − y_i)²``, each member's and head's loss altered by the methods.

        Args:
            critic: see ``agents.nets.networks.Critic``.
            batch: with the states and actions.
            target: y, ``(K, B)``.
        """
        if not self.altering:  # one node of the graph
            return critic.squared_error(batch.observation, batch.action, target)
        return self.altered(batch, critic.losses(batch.observation, batch.action, target)).sum()

    def altered(self, batch: Batch, losses: Tensor) -> Tensor:
        """Return the losses of the critics ``(M, K)`` as the methods alter them."""
        return functools.reduce(lambda own, held: held.critic_losses(self, batch, own), self.altering, losses)

    def taught(self, losses: Tensor, made_of: Callable[[], ActorPass]) -> Tensor:
        """Return the losses of the sub-policies ``(K,)`` as the methods alter them.

        Args:
            losses: of the agent, ``(K,)``.
            made_of: returns what they were made of; called only where there are methods.
        """
        if not self.methods:
            return losses
        given = made_of()
        for held in self.methods:
            given.losses = held.actor_losses(self, given)
        return given.losses

    def begin_actor_update(self) -> None:
        """Tell the methods that the actor is about to learn."""
        for held in self.methods:
            held.before_actor_update(self)

    def descend_apart(self, losses: Callable[[], Tensor], max_norm: float | None = None) -> Tensor | None:
        """Let a method take the actor's gradient steps, and return their loss; ``None`` where none does.

        Args:
            losses: of the sub-policies ``(K,)``, of a new forward pass whenever called.
            max_norm: bound of the gradient's Euclidean norm.
        """
        for held in self._stepping:
            loss = held.descend(self, losses, max_norm)
            if loss is not None:
                return loss
        return None

    def descend_critics(self, losses: Callable[[], Tensor]) -> Tensor:
        """Take one gradient step of the critics, or those of a method, and return their loss.

        Args:
            losses: of a new forward pass of the critics, whenever called.
        """
        for held in self._stepping_critics:
            loss = held.descend_critics(self, losses)
            if loss is not None:
                return loss
        loss = losses()
        self.own_optimizers["critic"].descend(loss)
        return loss

    @property
    def progress(self) -> float:
        """Share of the steps of ``learn`` that are over, 0 outside of it; offline, of its updates.

        It is 1 at the last update, also where fewer steps are left than lie between two updates.
        """
        total, between = self.total_timesteps, self.config.train_freq * getattr(self.env, "num_envs", 1)
        if not total:
            return 0.0
        return 1.0 if total - self.num_timesteps < between else self.num_timesteps / total

    def target_moves(self) -> None:
        """Tell the methods that the target of the network that says values is about to move."""
        for held in self.methods:
            held.before_target(self)

    def target_moved(self) -> None:
        """Tell the methods that the target networks have moved."""
        for held in self.methods:
            held.after_target(self)

    def choosing(self, observation: np.ndarray, choose: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the actions of a training step, with the methods told before and after."""
        for held in self.methods:
            held.before_acting(self, observation)
        action = choose(observation)
        for held in self.methods:
            held.after_acting(self, action)
        return action

    def learned(self) -> None:
        """Tell the methods that ``learn`` is over, if it has taken all of its steps."""
        if self.num_timesteps >= self.total_timesteps:
            for held in self.methods:
                held.after_learning(self)

    # ---- structure --------------------------------------------------------------------------------------------------

    def structure_changed(self, kept: Kept | None = None) -> None:
        """Follow after layers have changed size, units were removed or added, or parts were put in.

        Moving averages, optimizers, the meter, ``flops_per_action``, acting engines and methods look at the networks
        anew; the next update is counted anew. Layers of a network and of its target must have been changed alike.

        Args:
            kept: what ``budget_wrappers.modules.surgery.keep_units`` returned (several: ``merged``), so that moments
                stay with their weights; without it they are recognised by the weights' values where a parameter was
                replaced, and start at 0 where one was changed in place.

        Raises:
            ConfigError: a network and its target have layers of different sizes, or another number of parameters.
        """
        for average in self.averages:
            average.follow()
        for module in self.own_modules.values():
            name_sizes(module)
        for optimizer in self.optimizers.values():
            if isinstance(optimizer, FusedAdam):
                optimizer.follow(kept)
        if self.numpy_forward is not None:
            self.numpy_forward.follow()
        for held in self.methods:
            held.structure_changed(self, kept)
        if self._substitute is not None:
            self.flops_per_action = self._substitute.start_metering(self)
        self._recount()
        for told in self.followers:
            told()

    @property
    def structure(self) -> dict[str, dict[str, list[int]]]:
        """Sizes of the layers of each network that has others than it was made with: what a checkpoint carries."""
        now = {name: layer_sizes(module) for name, module in self.own_modules.items()}
        return {name: sizes for name, sizes in now.items() if sizes != self.built_sizes[name]}

    # ---- accounts ---------------------------------------------------------------------------------------------------

    def spending(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Return what steps shared like ``Evaluation.shares`` cost in the methods' own terms; nothing without any."""
        return _joined(held.spending(self, shares) for held in self.methods)

    def plain_state(self) -> dict[str, Any]:
        """Return further state for checkpoints, as JSON-able data; what methods keep included."""
        return _joined(held.plain_state(self) for held in self.methods)

    def load_plain_state(self, state: Mapping[str, Any]) -> None:
        """Take back what ``plain_state`` returned."""
        for held in self.methods:
            held.load_plain_state(self, state)

    def adopting(self, env: Any) -> AbstractContextManager[Self]:
        """Let the methods check another environment, and act on it once the block has put it in place."""
        after = [held.before_env(self, env) for held in self.methods]
        stack = contextlib.ExitStack()
        for act in reversed(after):
            stack.callback(act)
        return stack


def _joined(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return several mappings as one.

    Raises:
        ConfigError: a key that two of them have.
    """
    joined: dict[str, Any] = {}
    for part in parts:
        if twice := sorted(joined.keys() & part.keys()):
            raise ConfigError(f"two methods both say {', '.join(twice)}: expected each key once; rename one of them")
        joined |= part
    return joined
