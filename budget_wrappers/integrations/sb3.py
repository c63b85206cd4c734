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

import copy
import inspect
import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from budget_wrappers.errors import ConfigError, MeterError, UncountableError
from budget_wrappers.integrations.sb3_files import load
from budget_wrappers.integrations.sb3_noise import NoiseProducts, noise_products
from budget_wrappers.integrations.sb3_penalties import warn_of_lost_penalties
from budget_wrappers.metering import ComputeMeter, Watch, count_flops, get_meter
from budget_wrappers.metering.structure import is_static
from budget_wrappers.policies import AgentPolicy

Model = TypeVar("Model")


def metered(model: Model, meter: str | ComputeMeter = "policy") -> Model:
    """Charge what ``model`` spends, acting and learning, to ``meter``, and return the model.

    The model trains to the same numbers as without. Saving works as before and stores nothing of the meter, so a model
    that is loaded is not metered.

    Args:
        model: of ``stable_baselines3`` (SAC, TD3, DDPG, DQN, PPO, A2C or a subclass of one of them). A subclass with a
            ``train`` of its own is counted anew in each of its rounds of updates, the others once per kind of round.
        meter: name or object; wrappers read ``"policy"`` by default.

    Returns:
        The very model that was given, with an attribute ``meter``. Its class is a subclass of what it was.

    Raises:
        MeterError: it is metered already.
        ConfigError: it is no model of Stable-Baselines3, or one whose acting module is unknown.
        UncountableError: acting runs products outside of the modules that can be watched.
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
        "train": _counted_train(base, metering),
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


def flops_per_action(model: Any, deterministic: bool = True) -> int:
    """Return the FLOPs of ``model.predict`` on one observation, in the ``matmul`` convention.

    Args:
        model: of ``stable_baselines3``.
        deterministic: as in ``predict``; drawing state-dependent noise (``use_sde``) costs a product.

    Raises:
        UncountableError: the FLOPs of something in its policy cannot be counted.
    """
    policy = model.policy
    with torch.no_grad():  # distributions keep what they were given last, and a copy cannot take a graph along
        return count_flops(lambda observation: policy._predict(observation, deterministic), _example(model))


def as_sub_policy(model: Any, name: str | None = None, deterministic: bool = True) -> AgentPolicy:
    """Return ``model`` as a sub-policy, its FLOPs counted: one observation of the environment to one action.

    Observations are normalised where the model was trained in a ``VecNormalize``.

    Args:
        model: of ``stable_baselines3``.
        name: unique among its siblings; the model's class when None.
        deterministic: passed to ``predict``.
    """
    normaliser = model.get_vec_normalize_env()
    agent = model if normaliser is None else NormalisedModel(model, normaliser)
    flops = flops_per_action(model, deterministic)
    return AgentPolicy(agent, flops, name or type(model).__name__, deterministic, batched=True)


# ---- the meter's hold on a model ------------------------------------------------------------------------------------


class _Metering:
    """What is attached to one model.

    Attributes:
        meter: that is charged.
        learning: whether a round of updates, or an estimate of values, is being counted now.
        owner: refers to the model.
    """

    def __init__(self, model: Any, meter: ComputeMeter) -> None:
        acting, values = _sides(model)
        self.meter, self.learning = meter, False
        self._noise = [module for module in acting.values() if isinstance(module, NoiseProducts)]
        self.owner, self._policy = weakref.ref(model), model.policy
        self._token = object()  # part of every key, so that no two models share one
        self._checked = False
        self._value_costs: dict[Hashable, int] = {}
        _require_covered(model, acting)
        self._watches = _watch_all(meter, acting)
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

    def round(self, model: Any, train: Any, key: Hashable | None) -> None:
        """Run one round of updates and charge it to learning."""
        if not self._checked:
            self._checked = True
            warn_of_lost_penalties(model, flops_per_action)
        with self._counted(None if key is None else (self._token, key)):
            train()

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
        with self._counted((self._token, "values", shapes)):
            return estimate(observation)

    def _charge_value(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Charge the value side of a rollout's forward to learning: acting does not need it."""
        if self.learning:
            return
        # A weak reference equals only references to the same module, also after the module is gone.
        key = (weakref.ref(module), tuple(tuple(part.shape) for _, part in _parts(args[0])))
        self.learning = True  # counting runs the module, and so this hook, once more
        try:
            if key not in self._value_costs:
                self._value_costs[key] = count_flops(module, *args, convention=self.meter.convention)
            with self.meter.phase("learn", key=(self._token, *key)):
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


_OFF_POLICY = ("stable_baselines3.sac.sac", "stable_baselines3.td3.td3", "stable_baselines3.dqn.dqn")


# ---- which modules act ----------------------------------------------------------------------------------------------


def _sides(model: Any) -> tuple[dict[str, nn.Module], list[nn.Module]]:
    """Return the modules that acting runs, by name, and those of a rollout that only learning needs."""
    policy = getattr(model, "policy", None)
    for name in ("actor", "q_net"):
        module = getattr(policy, name, None)
        if isinstance(module, nn.Module):
            return {name: module}, []
    extractor = getattr(policy, "mlp_extractor", None)
    if isinstance(getattr(extractor, "policy_net", None), nn.Module) and hasattr(policy, "action_net"):
        acting = {"features": policy.pi_features_extractor, "actor": extractor.policy_net, "action": policy.action_net}
        acting |= noise_products(policy)
        values = [extractor.value_net, policy.value_net]
        if policy.vf_features_extractor is not policy.pi_features_extractor:
            values.append(policy.vf_features_extractor)
        return acting, values
    raise ConfigError(
        f"{type(model).__name__} has the policy {type(policy).__name__}: expected a Stable-Baselines3 model with an "
        'actor, a q_net or an mlp_extractor; watch what acts by hand, get_meter("policy").watch(module), and put '
        'meter.phase("learn") around its updates'
    )


def _require_covered(model: Any, acting: dict[str, nn.Module]) -> None:
    """Check that the modules to be watched hold every product of acting, so that nothing is silently 0."""
    probe, policy = ComputeMeter("probe"), model.policy
    mode = policy.training
    watches = _watch_all(probe, acting)
    policy.set_training_mode(False)
    try:
        with torch.no_grad():
            policy._predict(_example(model), deterministic=True)
    finally:
        policy.set_training_mode(mode)
        for watch in watches:
            watch.remove()
    seen, whole = probe.take().executed, flops_per_action(model)
    if seen != whole:
        raise UncountableError(
            f"acting with {type(policy).__name__} runs {whole} FLOPs, {seen} of them in {', '.join(acting)}: expected "
            "all of them there; watch the modules that act by hand: get_meter('policy').watch(module)"
        )


def _watch_all(meter: ComputeMeter, modules: dict[str, nn.Module]) -> list[Watch]:
    """Watch ``modules`` on ``meter``, or none of them."""
    watches: list[Watch] = []
    try:
        for name, module in modules.items():
            # None: the meter decides, and counts what runs where it does not know better.
            # Shared: a model that was loaded, or made again in the same session, takes its place beside the old one.
            watches.append(meter.watch(module, name, True if _shapes_decide(module) else None, shared=True))
    except (MeterError, UncountableError):
        for watch in watches:
            watch.remove()
        raise
    return watches


def _shapes_decide(module: nn.Module) -> bool:
    """Tell whether the FLOPs of ``module`` follow from the shapes of its inputs: true of what the library defines."""
    for part in module.modules():
        own = type(part).__module__.startswith("stable_baselines3.")
        if not own and not (type(part).__module__.startswith("torch.nn.modules.") and is_static(part)):
            return False
    return True


def _example(model: Any) -> Any:
    """Return one observation as the policy's tensors; the space's own generator is left alone."""
    observation = copy.deepcopy(model.observation_space).sample()
    return model.policy.obs_to_tensor(observation)[0]


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
