"""Which modules of a Stable-Baselines3 model act, those of sb3-contrib too, and that nothing acts outside of them."""

import copy
import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from budget_wrappers.core import Convention
from budget_wrappers.errors import ConfigError, MeterError, UncountableError
from budget_wrappers.integrations.sb3_noise import noise_products
from budget_wrappers.metering import ComputeMeter, CountingMode, Watch, count_flops
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.metering.structure import is_static

_LIBRARIES = ("stable_baselines3.", "sb3_contrib.")
_BUILDING = {"__init__", "_build", "_build_mlp_extractor", "make_actor", "make_critic", "make_q_net"}
"""Methods of a policy that make its parts, and act nowhere."""


def require_torch(model: Any) -> nn.Module:
    """Return the policy of ``model``.

    Raises:
        ConfigError: it has none, or one that is not a torch module: models of sbx act in JAX.
    """
    policy = getattr(model, "policy", None)
    if isinstance(policy, nn.Module):
        return policy
    raise ConfigError(
        f"{type(model).__name__} of {type(model).__module__.partition('.')[0]} has the policy {type(policy).__name__}: "
        "expected a Stable-Baselines3 model (or one of sb3_contrib), whose policy is a torch module; those of sbx act "
        "in JAX. Use one as a sub-policy by FunctionPolicy(lambda obs: model.predict(obs, deterministic=True)[0], "
        "flops=…), and charge its actions by meter.add(flops, rows=…); of another torch model watch what acts by hand, "
        'get_meter("policy").watch(module)'
    )


def sides_of(model: Any) -> tuple[dict[str, nn.Module], list[nn.Module]]:
    """Return the modules that acting runs, by name, and those of a rollout that only learning needs.

    Raises:
        ConfigError: the policy is recurrent, or it is unknown what acts in it.
    """
    policy = model.policy
    if isinstance(getattr(policy, "lstm_actor", None), nn.Module):
        raise ConfigError(
            f"{type(model).__name__} acts by a recurrent policy, {type(policy).__name__}: expected one without memory. "
            "Use it as a sub-policy, as_sub_policy(model); or watch what acts by hand, "
            'get_meter("policy").watch(model.policy.lstm_actor) and its other parts, and put meter.phase("learn") '
            "around its updates"
        )
    for name in ("actor", "q_net", "quantile_net"):
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
    if isinstance(getattr(policy, "action_net", None), nn.Module) and not hasattr(policy, "value_net"):  # ARS
        return {"features": policy.features_extractor, "action": policy.action_net}, []
    raise ConfigError(
        f"{type(model).__name__} has the policy {type(policy).__name__}: expected a model of Stable-Baselines3 or "
        "sb3-contrib with an actor, a q_net, a quantile_net or an mlp_extractor; watch what acts by hand, "
        'get_meter("policy").watch(module), and put meter.phase("learn") around its updates'
    )


def example_of(model: Any) -> Any:
    """Return one observation; the space's own generator is left alone."""
    return copy.deepcopy(model.observation_space).sample()


def watch_all(meter: ComputeMeter, modules: dict[str, nn.Module], owner: object) -> list[Watch]:
    """Watch ``modules`` on ``meter``, or none of them; ``owner`` stands for the model that they are part of."""
    watches: list[Watch] = []
    try:
        for name, module in modules.items():
            # None: the meter decides, and counts what runs where it does not know better.
            # Shared: a model that was loaded, or made again in the same session, takes its place beside the old one.
            static = True if _shapes_decide(module) else None
            watches.append(meter.watch(module, name, static, shared=True, owner=owner))
    except (MeterError, UncountableError):
        for watch in watches:
            watch.remove()
        raise
    return watches


def _shapes_decide(module: nn.Module) -> bool:
    """Tell whether the FLOPs of ``module`` follow from the shapes of its inputs: true of what the libraries define."""
    for part in module.modules():
        own = type(part).__module__.startswith(_LIBRARIES)
        if not own and not (type(part).__module__.startswith("torch.nn.modules.") and is_static(part)):
            return False
    return True


# ---- nothing acts outside of what is watched -------------------------------------------------------------------------


def require_covered(model: Any, acting: dict[str, nn.Module], values: list[nn.Module], convention: Convention) -> None:
    """Check that the modules to be watched run all of acting, so that nothing is silently 0.

    What acts is ``predict``, and while PPO and its kind collect, ``forward``. Each is run once, on one observation: the
    FLOPs inside and outside of the modules are those of the same run.

    Raises:
        UncountableError: something runs outside of them.
    """
    policy, observation = model.policy, example_of(model)
    with torch.no_grad():
        _refuse_outside(lambda: policy.predict(observation, deterministic=True), policy, acting, [], convention)
        if values:
            tensors = policy.obs_to_tensor(observation)[0]
            _refuse_outside(lambda: policy.forward(tensors), policy, acting, values, convention)


class CoverageChecks:
    """The same check at every action, where methods that act are not a library's own and may branch; else nothing.

    Args:
        model, acting, values, convention: see ``require_covered``.

    Attributes:
        counting: whether the policy runs only to be counted.
    """

    def __init__(
        self, model: Any, acting: dict[str, nn.Module], values: list[nn.Module], convention: Convention
    ) -> None:
        self._policy, self.counting = model.policy, False
        self._names: tuple[str, ...] = ()
        if not acts_by_own_code(model):
            return
        self._names = ("predict", "forward") if values else ("predict",)
        for name in self._names:
            checked = self._checked(
                getattr(self._policy, name), acting, [] if name == "predict" else values, convention
            )
            setattr(self._policy, name, checked)

    def _checked(self, method: Callable[..., Any], *rest: Any) -> Callable[..., Any]:
        @functools.wraps(method)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if self.counting:  # predict may run forward
                return method(*args, **kwargs)
            self.counting = True
            try:
                with torch.no_grad():
                    _refuse_outside(lambda: method(*args, **kwargs), self._policy, *rest)
            finally:
                self.counting = False
            return method(*args, **kwargs)

        return checked

    def remove(self) -> None:
        """Leave nothing on the policy."""
        for name in self._names:
            vars(self._policy).pop(name, None)


def acts_by_own_code(model: Any) -> bool:
    """Tell whether code that is not a library's may run between the modules that act."""
    policy = model.policy
    extractor, distribution = getattr(policy, "mlp_extractor", None), getattr(policy, "action_dist", None)
    return bool(_own_methods(type(policy)) - _BUILDING) or any(
        part is not None and not type(part).__module__.startswith(_LIBRARIES) for part in (extractor, distribution)
    )


def _own_methods(kind: type) -> set[str]:
    """Return the names that a class and its bases define before the first one of a library."""
    found: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith(_LIBRARIES):
            break
        found |= {name for name, value in vars(base).items() if callable(value)}
    return found


def _refuse_outside(
    call: Callable[[], Any],
    policy: nn.Module,
    acting: dict[str, nn.Module],
    values: Sequence[nn.Module],
    convention: Convention,
) -> None:
    whole, inside = _counted_in(call, policy, (*acting.values(), *values), convention)
    if whole != inside:
        raise UncountableError(
            f"acting with {type(policy).__name__} runs {whole} FLOPs ({convention!r}), {inside} of them in "
            f"{', '.join(acting)}{' and what values states' if values else ''}: expected all of them there; watch the "
            "modules that act by hand: get_meter('policy').watch(module). A meter of convention 'matmul' counts "
            "products only."
        )


def _counted_in(
    call: Callable[[], Any], policy: nn.Module, modules: Sequence[nn.Module], convention: Convention
) -> tuple[int, int]:
    """Return the FLOPs of one call, and how many of them ran inside of ``modules``; nothing else changes."""
    counter, depth, entered, inside = CountingMode(convention), 0, 0, 0

    def enter(*_: Any) -> None:
        nonlocal depth, entered
        entered = entered if depth else counter.flops
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth, inside
        depth -= 1
        inside += 0 if depth else counter.flops - entered

    def run() -> None:  # it refers to the policy, whose state is left as it is therefore
        with ExitStack() as hooks:
            hooks.enter_context(evaluating(policy))
            for module in modules:
                hooks.callback(module.register_forward_pre_hook(enter).remove)
                hooks.callback(module.register_forward_hook(leave).remove)
            with counter:
                call()

    count_flops(run)
    if counter.refused is not None:
        raise counter.refused
    return counter.flops, inside


__all__ = [
    "CoverageChecks",
    "acts_by_own_code",
    "example_of",
    "require_covered",
    "require_torch",
    "sides_of",
    "watch_all",
]
