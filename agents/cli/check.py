"""``budget check``: the wrapper checks on any wrapper."""

import importlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from agents.cli.arguments import parse, say
from agents.config import require
from agents.studies.names import nearest
from budget_wrappers.errors import BudgetError, ConfigError
from budget_wrappers.files import json_of

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class CheckOptions:
    """Check that a wrapper keeps Gymnasium's contract and this package's.

    Attributes:
        checked: the class, as ``module:Class``; a name without a module is one of budget_wrappers.wrappers.
        wrapper: the same as an option.
        env: a Gymnasium id to wrap.
        kwargs: the wrapper's arguments, as JSON.
        steps: length of the trajectories that are compared.
        seed: of environments and actions.
    """

    checked: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="WRAPPER")] = None
    wrapper: Annotated[str | None, tyro.conf.arg(metavar="WRAPPER")] = None
    env: str = "CartPole-v1"
    kwargs: str = "{}"
    steps: int = 64
    seed: int = 0


def run(arguments: Sequence[str]) -> int:
    """Check as ``arguments`` say; return 0 if the contract is kept and 1 if it is not."""
    options = parse(CheckOptions, arguments, "budget check", CheckOptions.__doc__ or "")
    if (options.checked is None) == (options.wrapper is None):
        given = [name for name in (options.checked, options.wrapper) if name is not None]
        raise ConfigError(
            f"{len(given)} wrappers are given {given}: expected one; name it once, as in "
            "`budget check RecordComputeStatistics` or `budget check --wrapper module:Class`"
        )
    require(options.steps >= 1, "steps", options.steps, "at least 1")
    require(options.seed >= 0, "seed", options.seed, "0 or more")
    name = options.checked or options.wrapper or ""
    wrapper, kwargs = wrapper_named(name), arguments_of(options.kwargs)

    import gymnasium as gym

    from agents.runs.run_config import made
    from budget_wrappers.errors import ContractError
    from budget_wrappers.wrappers import check_wrapper

    require_arguments(wrapper, name, kwargs)
    build_once(wrapper, name, made(gym.make, options.env), kwargs)
    try:
        check_wrapper(
            lambda: gym.make(options.env),
            lambda env: wrapper(env, **kwargs),
            steps=options.steps,
            seed=options.seed,
        )
    except ContractError as error:
        say(f"{name} over {options.env} breaks the contract: {error}")
        return 1
    say(f"{name} over {options.env} keeps the contract")
    return 0


def wrapper_named(name: str) -> type:
    """Return the class that ``module:Class`` names.

    Raises:
        ConfigError: there is none, or it is no wrapper.
    """
    import gymnasium as gym

    module, _, attribute = name.rpartition(":")
    try:
        found = getattr(importlib.import_module(module or "budget_wrappers.wrappers"), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"wrapper={name!r} cannot be imported ({error}): expected module:Class, with the module on Python's path; "
            "for example budget_wrappers.wrappers:RecordComputeStatistics"
        ) from error
    if not (isinstance(found, type) and issubclass(found, gym.Wrapper)):
        raise ConfigError(
            f"wrapper={name!r} is {found!r}: expected a class derived from gymnasium.Wrapper, whose first argument is "
            "the environment; for example budget_wrappers.wrappers:RecordComputeStatistics"
        )
    return found


def require_arguments(wrapper: type, name: str, kwargs: dict[str, Any]) -> None:
    """Check that ``wrapper(env, **kwargs)`` passes every argument that it must, and none that it does not take.

    Raises:
        ConfigError: one is missing or unknown; the message names it, and the nearest that is known.
    """
    parameters = list(inspect.signature(wrapper).parameters.values())[1:]  # the first takes the environment
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = [parameter for parameter in parameters if parameter.kind in NAMED]
    known = [parameter.name for parameter in named]
    for key in kwargs:
        if key not in known and not takes_any:
            raise ConfigError(
                f"kwargs: {name} takes no argument {key!r}; " + (nearest(key, known) if known else "it takes none")
            )
    missing = [parameter.name for parameter in named if parameter.default is parameter.empty]
    missing = [key for key in missing if key not in kwargs]
    if missing:
        example = json.dumps(dict.fromkeys(missing, "..."))
        raise ConfigError(
            f"kwargs={json.dumps(kwargs)}: {name} also needs {', '.join(missing)}; pass it, as in --kwargs '{example}'"
        )


def build_once(wrapper: type, name: str, env: Any, kwargs: dict[str, Any]) -> None:
    """Wrap ``env`` and close it: a wrapper that cannot be built has not broken its contract.

    Raises:
        ConfigError: the wrapper refuses its arguments.
    """
    try:
        wrapper(env, **kwargs)
    except (TypeError, ValueError, AssertionError) as error:
        if isinstance(error, BudgetError):
            raise
        raise ConfigError(
            f"{name} cannot be made with kwargs={json.dumps(kwargs)} ({type(error).__name__}: {error}): expected the "
            "arguments of its constructor; correct --kwargs or the wrapper"
        ) from error
    finally:
        env.close()


def arguments_of(text: str) -> dict[str, Any]:
    """Return the arguments that ``text`` holds as JSON.

    Raises:
        ConfigError: it is not a JSON object.
    """
    try:
        value = json_of(text)
    except ValueError as error:
        raise ConfigError(f"kwargs={text!r} is not JSON ({error}): expected such as '{{\"weight\": 0.1}}'") from error
    if not isinstance(value, dict):
        raise ConfigError(f"kwargs={text!r}: expected a JSON object such as '{{\"weight\": 0.1}}'; name each argument")
    return value
