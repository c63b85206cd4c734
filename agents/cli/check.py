"""``budget check``: the wrapper checks on any wrapper."""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agents.cli.arguments import parse, say
from budget_wrappers.errors import ConfigError


@dataclass(frozen=True)
class CheckOptions:
    """Check that a wrapper keeps Gymnasium's contract and this package's.

    Attributes:
        wrapper: the class, as ``module:Class``; a name without a module is one of budget_wrappers.wrappers.
        env: a Gymnasium id to wrap.
        kwargs: the wrapper's arguments, as JSON.
        steps: length of the trajectories that are compared.
        seed: of environments and actions.
    """

    wrapper: str
    env: str = "CartPole-v1"
    kwargs: str = "{}"
    steps: int = 64
    seed: int = 0


def run(arguments: Sequence[str]) -> int:
    """Check as ``arguments`` say; return 0 if the contract is kept and 1 if it is not."""
    options = parse(CheckOptions, arguments, "budget check", CheckOptions.__doc__ or "")
    wrapper, kwargs = wrapper_named(options.wrapper), arguments_of(options.kwargs)

    import gymnasium as gym

    from agents.common.run import made
    from budget_wrappers.errors import ContractError
    from budget_wrappers.wrappers import check_wrapper

    made(gym.make, options.env).close()
    try:
        check_wrapper(
            lambda: gym.make(options.env),
            lambda env: wrapper(env, **kwargs),
            steps=options.steps,
            seed=options.seed,
        )
    except ContractError as error:
        say(f"{options.wrapper} over {options.env} breaks the contract: {error}")
        return 1
    say(f"{options.wrapper} over {options.env} keeps the contract")
    return 0


def wrapper_named(name: str) -> Callable[..., Any]:
    """Return the class that ``module:Class`` names.

    Raises:
        ConfigError: there is none.
    """
    module, _, attribute = name.rpartition(":")
    try:
        return getattr(importlib.import_module(module or "budget_wrappers.wrappers"), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"wrapper={name!r} cannot be imported ({error}): expected module:Class, with the module on Python's path; "
            "for example budget_wrappers.wrappers:RecordComputeStatistics"
        ) from error


def arguments_of(text: str) -> dict[str, Any]:
    """Return the arguments that ``text`` holds as JSON.

    Raises:
        ConfigError: it is not a JSON object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"kwargs={text!r} is not JSON ({error}): expected such as '{{\"weight\": 0.1}}'") from error
    if not isinstance(value, dict):
        raise ConfigError(f"kwargs={text!r}: expected a JSON object such as '{{\"weight\": 0.1}}'; name each argument")
    return value
