"""Checks that a wrapper keeps Gymnasium's contract and ours: ``check_wrapper``, for these wrappers and anybody's."""

import inspect
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.utils.env_checker import data_equivalence

from budget_wrappers.errors import BudgetError, ContractError, MeterError
from budget_wrappers.wrappers.account import find_attribute
from budget_wrappers.wrappers.reading import find_chooser, reward_space_of

EnvFn = Callable[[], gym.Env]
WrapperFn = Callable[[gym.Env], gym.Env]

FLOPS_A_STEP = 64
"""What the checker charges in place of a policy."""

MAX_INFO_KEYS = 3
"""A vector environment pays about 5 µs for each info key at each step."""


def check_wrapper(env_fn: EnvFn, wrapper_fn: WrapperFn, *, steps: int = 64, seed: int = 0) -> None:
    """Check a wrapper around an environment, and return nothing when it keeps its contract.

    Checked: spaces of the environment untouched and its elements legal; Python types; info keys present from reset on,
    few, and float; ``info["cost"]`` finite and not negative; seed and options arrive; arrays of the environment are not
    edited; two seeded copies agree; the spec survives JSON (where the arguments are plain data) and records every
    argument; pickle; ``repr``, wrapping twice, ``set_budget`` through further layers, closing twice. For a wrapper that
    reads a meter the checker plays the policy and charges it.

    Args:
        env_fn: makes the environment, a new one at each call.
        wrapper_fn: wraps it.
        steps: length of the trajectories that are compared.
        seed: of environments and actions.

    Raises:
        ContractError: a rule is broken; the message names it, with what was found and what to do.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.wrappers import RecordComputeStatistics, check_wrapper
        >>> check_wrapper(lambda: gym.make("CartPole-v1"), lambda env: RecordComputeStatistics(env, meter="docs.check"))
    """
    for check in (
        _check_spaces,
        _check_values,
        _check_reset_arguments,
        _check_determinism,
        _check_recorded_arguments,
        _check_spec,
        _check_pickle,
        _check_nesting,
        _check_budget,
        _check_close,
    ):
        check(env_fn, wrapper_fn, steps, seed)


class _Probe(gym.Wrapper, RecordConstructorArgs):
    """Sits between environment and wrapper: remembers what arrives and hands out arrays that cannot be written."""

    def __init__(self, env: gym.Env) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.resets: list[tuple[int | None, Any]] = []
        self.info_keys: set[str] = set()
        self.closed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.resets.append((seed, None if options is None else dict(options)))
        obs, info = self.env.reset(seed=seed, options=options)
        self.info_keys = set(info)
        return _frozen(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.info_keys = set(info)
        return _frozen(obs), _frozen(reward), terminated, truncated, info

    def close(self) -> None:
        self.closed += 1
        self.env.close()


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.copy()
        value.flags.writeable = False
        return value
    if isinstance(value, dict):
        return {key: _frozen(entry) for key, entry in value.items()}
    return tuple(_frozen(entry) for entry in value) if isinstance(value, tuple) else value


def _charge(env: gym.Env) -> None:
    """Charge what a policy would: the selector's declared cost over a wrapper that chooses."""
    chooser = find_chooser(env)
    flops = FLOPS_A_STEP if chooser is None else int(chooser.selector_flops)
    meters = list({account.meter for account in find_attribute(env, "compute_accounts", ())})
    if not meters and env.has_wrapper_attr("meter"):
        meters = [env.get_wrapper_attr("meter")]
    for meter in meters:
        meter.add(flops)


def _fail(rule: str, found: str, remedy: str) -> ContractError:
    return ContractError(f"{rule}: {found}. {remedy}")


def _check_spaces(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    inner = env_fn()
    before = inner.observation_space, inner.action_space
    env = wrapper_fn(inner)
    if (inner.observation_space, inner.action_space) != before:
        raise _fail("Spaces", f"{env} changed those of the environment inside it", "Set the wrapper's own spaces.")
    obs, _ = env.reset(seed=seed)
    if obs not in env.observation_space:
        raise _fail(
            "Spaces", f"the first observation {obs!r} is not in {env.observation_space}", "Mind shape and dtype."
        )
    if env.observation_space is not env.observation_space or env.action_space is not env.action_space:
        raise _fail("Spaces", "each access makes a new space", "Build them once, in __init__, or seeding is lost.")
    env.close()


def _check_values(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    probe = _Probe(env_fn())
    env = wrapper_fn(probe)
    env.action_space.seed(seed)
    _, info = env.reset(seed=seed)
    at_reset = set(info) - probe.info_keys
    cost_key = find_attribute(env, "cost_key", "cost")
    if cost_key in at_reset and info[cost_key] != 0.0:
        raise _fail("Cost", f"info[{cost_key!r}] is {info[cost_key]!r} at reset", "Nothing has run: hand out 0.0.")
    for _ in range(steps):
        _charge(env)
        try:
            obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        except ValueError as error:
            if "read-only" in str(error):
                raise _fail("Arrays", "the wrapper edits an array of the environment", "Copy it first.") from error
            raise
        if obs not in env.observation_space:
            raise _fail("Spaces", f"the observation {obs!r} is not in {env.observation_space}", "Mind shape and dtype.")
        if type(terminated) is not bool or type(truncated) is not bool:
            raise _fail(
                "Types",
                f"terminated and truncated are {type(terminated).__name__} and {type(truncated).__name__}",
                "Hand out Python bools: check_env refuses others.",
            )
        _check_reward(env, reward)
        _check_info(set(info) - probe.info_keys, info, at_reset, cost_key, terminated or truncated)
        if terminated or truncated:
            env.reset()
    env.close()


def _check_reward(env: gym.Env, reward: Any) -> None:
    space = reward_space_of(env)
    if space is not None:
        if reward not in space:
            raise _fail("Types", f"the reward {reward!r} is not in {space}", "Mind shape and dtype.")
    elif not isinstance(reward, float | int | np.floating | np.integer) or not math.isfinite(reward):
        raise _fail("Types", f"the reward is {reward!r}", "Hand out a finite Python float.")


def _check_info(added: set[str], info: dict[str, Any], at_reset: set[str], cost_key: str, ended: bool) -> None:
    if cost_key in added:
        cost = info[cost_key]
        if not isinstance(cost, np.float64) or not math.isfinite(cost) or cost < 0:
            raise _fail(
                "Cost",
                f"info[{cost_key!r}] is {cost!r}",
                "Hand out a finite np.float64 >= 0: readers need .dtype, and vector environments keep the first type.",
            )
    if ended:
        return
    if len(added) > MAX_INFO_KEYS:
        raise _fail("Info", f"{sorted(added)} at every step", f"Add {MAX_INFO_KEYS} keys a step at most.")
    if late := added - at_reset:
        raise _fail("Info", f"{sorted(late)} missing at reset", "Readers build their storage from the reset's info.")
    for key in sorted(added):
        if not isinstance(info[key], float | dict):
            raise _fail(
                "Info", f"info[{key!r}] is {info[key]!r}", "Hand out floats: a vector env keeps the first type."
            )


def _check_reset_arguments(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    probe = _Probe(env_fn())
    env = wrapper_fn(probe)
    given = {"check_wrapper": 1}
    env.reset(seed=seed, options=given)
    if not probe.resets or probe.resets[-1][0] != seed:
        raise _fail("Reset", f"seed {seed} arrived as {probe.resets}", "Pass seed on to self.env.reset.")
    if not (probe.resets[-1][1] or {}).get("check_wrapper"):
        raise _fail("Reset", f"options {given} arrived as {probe.resets[-1][1]}", "Pass options on to self.env.reset.")
    if given != {"check_wrapper": 1}:
        raise _fail("Reset", f"the caller's options became {given}", "Copy options before taking from them.")
    env.close()


def _trajectory(env: gym.Env, steps: int, seed: int) -> list[Any]:
    env.action_space.seed(seed)
    record: list[Any] = [env.reset(seed=seed)]
    for _ in range(steps):
        _charge(env)
        record.append(env.step(env.action_space.sample()))
        if record[-1][2] or record[-1][3]:
            record.append(env.reset())
    return record


def _check_determinism(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    first, second = wrapper_fn(env_fn()), wrapper_fn(env_fn())
    _compare(
        _trajectory(first, steps, seed),
        _trajectory(second, steps, seed),
        "Determinism",
        "No clock, no global random numbers: use self.np_random.",
    )
    first.close()
    second.close()


def _compare(left: list[Any], right: list[Any], rule: str, remedy: str) -> None:
    for step, (one, other) in enumerate(zip(left, right, strict=False)):
        if not data_equivalence(one, other, exact=True):
            raise _fail(rule, f"at step {step} one copy returned {one!r} and the other {other!r}", remedy)


def _check_recorded_arguments(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    env = wrapper_fn(env_fn())
    if not isinstance(env, RecordConstructorArgs):
        raise _fail("Spec", f"{type(env).__name__} does not record its arguments", "Inherit RecordConstructorArgs.")
    expected = set(inspect.signature(type(env).__init__).parameters) - {"self", "env"}
    recorded = set(env._saved_kwargs) - {"env"}
    if recorded != expected:
        raise _fail(
            "Spec",
            f"{type(env).__name__} records {sorted(recorded)} and takes {sorted(expected)}",
            "Call RecordConstructorArgs.__init__ with every argument, before Wrapper.__init__.",
        )
    env.close()


def _is_plain(env: gym.Env) -> bool:
    """Return whether every layer was made with plain data; functions and networks cannot be written down."""
    layer = env
    while isinstance(layer, gym.Wrapper):
        try:
            json.dumps(getattr(layer, "_saved_kwargs", {}))
        except TypeError:
            return False
        layer = layer.env
    return True


def _check_spec(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    env = wrapper_fn(env_fn())
    if env.spec is None or not _is_plain(env) or any(entry.kwargs is None for entry in env.spec.additional_wrappers):
        return
    try:
        text = env.spec.to_json()
    except (TypeError, ValueError):  # a layer further in, not ours to judge
        return
    remade = gym.make(gym.envs.registration.EnvSpec.from_json(text))
    if type(remade) is not type(env) or remade.observation_space != env.observation_space:
        raise _fail("Spec", f"{env} was made again from its spec as {remade}", "Record every argument.")
    _compare(_trajectory(env, steps, seed), _trajectory(remade, steps, seed), "Spec", "Record every argument.")
    env.close()
    remade.close()


def _check_pickle(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    env = wrapper_fn(env_fn())
    if not _is_plain(env):
        return
    try:
        copy = pickle.loads(pickle.dumps(env))
    except MeterError:  # a meter that was given as an object says so itself
        return
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise _fail("Pickle", f"{env} cannot be pickled ({error})", "Hold no function, lock or file.") from error
    _compare(_trajectory(env, steps, seed), _trajectory(copy, steps, seed), "Pickle", "Keep all state in attributes.")
    env.close()
    copy.close()


def _check_nesting(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    env = wrapper_fn(env_fn())
    if type(env).__name__ not in repr(env):
        raise _fail("Repr", f"repr is {env!r}", "Leave Wrapper.__repr__ as it is.")
    try:
        twice = wrapper_fn(env)
        _trajectory(twice, min(steps, 8), seed)
    except BudgetError:  # refusing by name is an answer; an AttributeError is not
        return
    except AttributeError as error:
        raise _fail(
            "Nesting", f"wrapped twice it fails with {error}", "Reach inner layers by get_wrapper_attr."
        ) from error
    finally:
        env.close()


def _check_budget(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    env = wrapper_fn(env_fn())
    if not hasattr(env, "set_budget"):
        return
    outer = gym.wrappers.OrderEnforcing(gym.Wrapper(env))
    if not callable(find_attribute(outer, "set_budget")):
        raise _fail("Budget", "set_budget is out of reach through further layers", "Make it a public method.")
    # The budget that it has, as the unit of another one is not known here.
    budget = find_attribute(outer, "max_flops", find_attribute(outer, "budget"))
    if budget is not None:
        outer.get_wrapper_attr("set_budget")(budget)
        outer.reset(seed=seed, options={"budget": budget})
    outer.close()


def _check_close(env_fn: EnvFn, wrapper_fn: WrapperFn, steps: int, seed: int) -> None:
    probe = _Probe(env_fn())
    env = wrapper_fn(probe)
    env.reset(seed=seed)
    env.close()
    if not probe.closed:
        raise _fail("Close", "the environment was not closed", "Call self.env.close().")
    env.close()


__all__ = ["check_wrapper"]
