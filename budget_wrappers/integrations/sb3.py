"""Stable-Baselines3: meter its models, use them as sub-policies, load their files on request.

One line meters a model that somebody else wrote, and nothing of it has to change::

    model = metered(SAC("MlpPolicy", RecordComputeStatistics(env)))
    model.learn(10_000)
    get_meter("policy").totals  # {"act": …, "learn": …}

What acts is watched (the actor of SAC, TD3 and DDPG, the online network of DQN, the policy side of PPO and A2C), and
each round of updates is counted as learning, forward and backward, although its losses bypass ``forward``.

An ``EvalCallback`` in an environment without our wrappers is counted, and no step of the training pays for it.

Two habits of Stable-Baselines3 that matter here:

* It stores rewards as float32, where 5000 − 1e-4 == 5000: a penalty that is tiny beside the reward is lost. A metered
  model warns once when that happens.
* ``make_vec_env`` puts its ``Monitor`` inside ``wrapper_class``, so the returns that it logs have no penalty in them;
  ``info["compute"]`` holds both. ``set_attr`` reaches the outermost wrapper only: change a budget with
  ``model.get_env().env_method("set_budget", …)``.
"""

import inspect
import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from budget_wrappers.core import Convention
from budget_wrappers.errors import MeterError
from budget_wrappers.integrations.attaching import detach
from budget_wrappers.integrations.sb3_acting import (
    CoverageChecks,
    example_of,
    require_covered,
    require_torch,
    sides_of,
    watch_all,
)
from budget_wrappers.integrations.sb3_files import load
from budget_wrappers.integrations.sb3_hindsight import keep_penalties
from budget_wrappers.integrations.sb3_noise import NoiseProducts
from budget_wrappers.integrations.sb3_penalties import warn_of_lost_penalties
from budget_wrappers.integrations.sb3_search import searching_members
from budget_wrappers.metering import ComputeMeter, count_flops, get_meter
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.metering.quiet import counting
from budget_wrappers.metering.structure import Structure
from budget_wrappers.policies import AgentPolicy

Model = TypeVar("Model")


def metered(model: Model, meter: str | ComputeMeter = "policy") -> Model:
    """Charge what ``model`` spends, acting and learning, to ``meter``, and return the model.

    The model trains to the same numbers as without. Saving works as before and stores nothing of the meter, so a model
    that is loaded is not metered.

    Args:
        model: of ``stable_baselines3`` (SAC, TD3, DDPG, DQN, PPO, A2C) or ``sb3_contrib`` (TQC, CrossQ, QRDQN, TRPO,
            MaskablePPO, ARS), or a subclass of one of them. A subclass with a ``train`` of its own is counted anew in
            each of its rounds of updates, the others once per kind of round. Where methods that act are a user's own,
            each action is checked, which takes as long again.
        meter: name or object; wrappers read ``"policy"`` by default.

    Returns:
        The very model that was given, with an attribute ``meter``. Its class is a subclass of what it was.

    Raises:
        MeterError: it is metered already.
        ConfigError: it is no model of Stable-Baselines3, or one whose acting module is unknown or recurrent; it learns
            in hindsight, and its penalties cannot be told from its rewards.
        UncountableError: acting runs operators outside of the modules that can be watched; also from ``predict`` or
            ``learn`` where the model's own methods act.
    """
    if _metering_of(model) is not None:
        raise MeterError(
            f"this {type(model).__name__} is metered already, by {model.meter!r}; call unmeter(model) first"
        )
    base = type(model)
    metering = _Metering(model, get_meter(meter) if isinstance(meter, str) else meter)
    members = {
        "__doc__": base.__doc__,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "_metering": metering,
        "meter": property(lambda self: metering.meter),
        **metering.members(base),
        "_setup_learn": _told_aside(base, metering),
        "load": classmethod(lambda cls, *args, **kwargs: base.load(*args, **kwargs)),
    }
    # A class for this one model, and not attributes on it: save() writes all that the model's __dict__ holds.
    model.__class__ = type(base.__name__, (base,), members)
    return model


def unmeter(model: Model) -> Model:
    """Undo ``metered`` and leave nothing behind on ``model``.

    Raises:
        MeterError: it is not metered.
    """
    metering = _metering_of(model)
    if metering is None:
        raise MeterError(f"this {type(model).__name__} is not metered; pass what metered() returned")
    metering.detach()
    model.__class__ = type(model).__base__
    return model


def flops_per_action(model: Any, deterministic: bool = True, *, convention: Convention = "matmul") -> int:
    """Return the FLOPs of ``model.policy.predict`` on one observation.

    Args:
        model: of ``stable_baselines3`` or ``sb3_contrib``.
        deterministic: as in ``predict``; drawing state-dependent noise (``use_sde``) costs a product.
        convention: what to count.

    Raises:
        ConfigError: its policy is not of torch, as those of sbx are not.
        UncountableError: the FLOPs of something in its policy cannot be counted.
    """
    policy, example = require_torch(model), example_of(model)
    # Without gradients: distributions keep what they were given last, and a copy cannot take a graph along.
    with torch.no_grad(), evaluating(policy):
        return count_flops(lambda: policy.predict(example, deterministic=deterministic), convention=convention)


def as_sub_policy(
    model: Any, name: str | None = None, deterministic: bool = True, *, convention: Convention = "matmul"
) -> AgentPolicy:
    """Return ``model`` as a sub-policy, its FLOPs counted: one observation of the environment to one action.

    Observations are normalised where the model was trained in a ``VecNormalize``. A recurrent model keeps its memory
    for each environment and episode.

    Args:
        model: of ``stable_baselines3`` or ``sb3_contrib``.
        name: unique among its siblings; the model's class when None.
        deterministic: passed to ``predict``.
        convention: what to count: that of the meter that pays for it.

    Raises:
        ConfigError, UncountableError: as ``flops_per_action``.
    """
    flops = flops_per_action(model, deterministic, convention=convention)
    normaliser = model.get_vec_normalize_env()
    agent = model if normaliser is None else NormalisedModel(model, normaliser)
    return AgentPolicy(agent, flops, name or type(model).__name__, deterministic, batched=True, convention=convention)


# ---- the meter's hold on a model ------------------------------------------------------------------------------------


class _Metering:
    """What is attached to one model.

    Attributes:
        meter: that is charged.
        learning: whether a round of updates, or an estimate of values, is being counted now.
        owner: refers to the model.
        acted: whether an action of a rollout was ever charged.
    """

    def __init__(self, model: Any, meter: ComputeMeter) -> None:
        require_torch(model)
        acting, values = sides_of(model)
        self.meter, self.learning = meter, False
        self._noise = [module for module in acting.values() if isinstance(module, NoiseProducts)]
        self.owner, self._policy = weakref.ref(model), model.policy
        self._token = object()  # part of every key, so that no two models share one, nor one with other layers
        self._checked, self._replay = False, None
        self._value_costs: dict[Hashable, int] = {}
        require_covered(model, acting, values, meter.convention)
        self._replay = keep_penalties(model, meter, None)
        self._acting = acting
        self._structure = Structure(self._policy)
        self._watches, self.acted = watch_all(meter, acting, self._token), False
        self._checks = CoverageChecks(model, acting, values, meter.convention)
        self._hooks = [module.register_forward_hook(self._charge_value) for module in values]
        if values:
            estimate = self._policy.predict_values
            self._policy.predict_values = lambda observation: self._estimate(estimate, observation)

    def detach(self) -> None:
        """Leave nothing on the model's modules."""
        for watch in self._watches:
            watch.remove()
        for part in (*self._hooks, *self._noise):
            part.remove()
        vars(self._policy).pop("predict_values", None)
        self._checks.remove()
        if self._replay is not None:
            detach(self._replay)

    def holds(self, model: Any) -> bool:
        """Tell whether this is what is attached to ``model``, and not to one that it is a copy of."""
        return _metering_of(model) is self

    def members(self, base: type) -> dict[str, Any]:
        """Return what the model's class gets: its rounds of updates, counted."""
        if not hasattr(base, "train"):
            return searching_members(base, self)
        drawing = {"_sample_action": _told_of_free(base, self)} if hasattr(base, "_sample_action") else {}
        return {"train": _counted_train(base, self), **drawing}

    def round(self, model: Any, train: Any, key: Hashable | None) -> None:
        """Run one round of updates and charge it to learning."""
        self._replay = keep_penalties(model, self.meter, self._replay)  # another environment or replay since
        if not self._checked:
            self._checked = True
            warn_of_lost_penalties(model, flops_per_action)
        with self._counted(None if key is None else (self._current(), key)):
            train()

    def _current(self) -> object:
        """Return what stands for the policy with the layers that it has now."""
        if not self._structure.holds():
            self._structure, self._token = Structure(self._policy), object()
            self._value_costs.clear()
        return self._token

    @contextmanager
    def _counted(self, key: Hashable | None) -> Iterator[None]:
        before, self.learning = self.learning, True
        try:
            with self.meter.phase("learn", key=key):
                yield
        finally:
            self.learning = before

    def _estimate(self, estimate: Any, observation: Any) -> Any:
        """Estimate values for a target: learning, also where it runs the extractor that acting shares."""
        if self.learning:
            return estimate(observation)
        shapes = tuple((name, tuple(part.shape)) for name, part in _parts(observation))
        with self._counted((self._current(), "values", shapes)):
            return estimate(observation)

    def _charge_value(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Charge the value side of a rollout's forward to learning: acting does not need it."""
        if self.learning or self._checks.counting or counting():
            return
        # A weak reference equals only references to the same module, also after the module is gone.
        token, key = self._current(), (weakref.ref(module), tuple(tuple(part.shape) for _, part in _parts(args[0])))
        self.learning = True  # counting runs the module, and so this hook, once more
        try:
            if key not in self._value_costs:
                self._value_costs[key] = count_flops(module, *args, convention=self.meter.convention)
            with self.meter.phase("learn", key=(token, *key)):
                self.meter.add(self._value_costs[key])
        finally:
            self.learning = False


def _metering_of(model: Any) -> _Metering | None:
    """Return what is attached to ``model``; a copy of a metered model has its class, and nothing attached."""
    metering = getattr(type(model), "_metering", None)
    return metering if isinstance(metering, _Metering) and metering.owner() is model else None


def _counted_train(base: type, metering: _Metering) -> Any:
    """Return a method that runs ``base.train`` and charges it."""
    train = base.train
    signature = inspect.signature(train)

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        if _metering_of(self) is not metering:
            train(self, *args, **kwargs)
            return
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        metering.round(self, lambda: train(self, *args, **kwargs), _kind_of_round(base, self, given.arguments))

    counted.__doc__ = train.__doc__
    return counted


def _told_of_free(base: type, metering: _Metering) -> Any:
    """Return a method that draws actions of a rollout, and tells the meter where random ones ran nothing."""

    def sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = metering.meter.executed
        drawn = base._sample_action(self, *args, **kwargs)
        if metering.holds(self) and metering.meter.executed != before:
            metering.acted = True
        elif metering.holds(self):
            # A DQN draws at random now and then; one that has never acted has other reasons.
            warming = self.num_timesteps < self.learning_starts
            if warming or (metering.acted and hasattr(self, "exploration_rate")):
                metering.meter.acted_for_free()
        return drawn

    return sample


def _told_aside(base: type, metering: _Metering) -> Any:
    """Return a method that hands ``learn`` callbacks whose evaluations no step of the training pays for."""

    def set_up(self: Any, *args: Any, **kwargs: Any) -> tuple[int, Any]:
        steps, callback = base._setup_learn(self, *args, **kwargs)
        return steps, (_Uncharged(callback, metering.meter) if _metering_of(self) is metering else callback)

    return set_up


class _Uncharged:
    """A callback that acts, in an environment of its own, at nobody's cost.

    Args:
        callback: of Stable-Baselines3.
        meter: that its model charges.
    """

    def __init__(self, callback: Any, meter: ComputeMeter) -> None:
        self._callback, self._meter = callback, meter

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._callback, name)
        return self._around(found) if name.startswith("on_") else found

    def _around(self, event: Any) -> Any:
        def told(*args: Any) -> Any:
            with self._meter.uncharging():
                return event(*args)

        return told


def _kind_of_round(base: type, model: Any, arguments: dict[str, Any]) -> Hashable | None:
    """Return what the FLOPs of this call of ``train`` follow from, or None when it has to be counted.

    TD3 updates its actor with every ``policy_delay``-th critic, so its rounds are of several kinds. PPO with a
    ``target_kl`` stops where the data tell it to.
    """
    if base.train.__module__ == "stable_baselines3.ppo.ppo":
        steps = model.n_steps * model.n_envs
        return None if model.target_kl is not None else ("ppo", steps, model.batch_size, model.n_epochs)
    if base.train.__module__ == "stable_baselines3.a2c.a2c":
        return ("a2c", model.n_steps * model.n_envs)
    if base.train.__module__ not in _OFF_POLICY:
        return None
    steps, batch = arguments["gradient_steps"], arguments["batch_size"]
    delay = getattr(model, "policy_delay", 1)
    actor_updates = sum((model._n_updates + step) % delay == 0 for step in range(1, steps + 1))
    return ("off-policy", steps, batch, actor_updates)


_OFF_POLICY = (
    "stable_baselines3.sac.sac",
    "stable_baselines3.td3.td3",
    "stable_baselines3.dqn.dqn",
    "sb3_contrib.tqc.tqc",
    "sb3_contrib.qrdqn.qrdqn",
)


def _parts(observation: Any) -> list[tuple[str, torch.Tensor]]:
    return list(observation.items()) if isinstance(observation, dict) else [("", observation)]


class NormalisedModel:
    """A model whose observations are normalised as they were in training.

    Args:
        model: of ``stable_baselines3``.
        normaliser: the ``VecNormalize`` that it was trained in; its statistics stay as they are.

    Attributes:
        model: as given.
    """

    def __init__(self, model: Any, normaliser: Any) -> None:
        self.model, self._normaliser = model, normaliser

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        """Return the action for ``observation`` as the environment gave it, and the state."""
        return self.model.predict(self._normaliser.normalize_obs(observation), state, episode_start, deterministic)

    @property
    def meter(self) -> ComputeMeter:
        """The meter that the model charges; only a metered one has it."""
        return self.model.meter


__all__ = ["NormalisedModel", "as_sub_policy", "flops_per_action", "load", "metered", "unmeter"]
