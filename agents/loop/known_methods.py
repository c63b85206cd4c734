"""The methods of this package by the names that checkpoints, runs and the command line give them."""

import difflib
import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from agents.loop.method import Method, checked_methods
from budget_wrappers.errors import CheckpointError, ConfigError

METHODS = {
    "exits": ("agents.methods.exits", "Exits"),
    "polyprune": ("agents.methods.polyprune", "PolyPrune"),
    "population": ("agents.methods.population", "Population"),
    "units": ("agents.methods.units", "Units"),
}
"""Name -> module and class; a module is imported when its method is asked for."""


def method_named(name: str) -> type[Method]:
    """Return the class of a method.

    Raises:
        ConfigError: no method of that name; the message names the nearest.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(METHODS)}"
        raise ConfigError(f"there is no method {name!r}; {hint}")
    module, attribute = METHODS[name]
    return getattr(importlib.import_module(module), attribute)


def methods_from(agent_class: Any, records: Mapping[str, Any], where: str) -> dict[str, list[Method]]:
    """Return methods from what ``methods_given`` of an agent returned, by the argument that takes them.

    Args:
        agent_class: class of the agent, which says what arguments it has.
        records: what was stored.
        where: the file, for messages.

    Raises:
        CheckpointError: records of another form, or a method that is not this package's.
    """
    if unknown := sorted(set(records) - set(agent_class.method_arguments)):
        raise CheckpointError(
            f"{where} stores methods under {', '.join(map(repr, unknown))}: expected "
            f"{' or '.join(agent_class.method_arguments)} of {agent_class.__name__}; take a file that `save` wrote"
        )
    try:
        return {
            argument: list(checked_methods([method_named(one["name"])(**one["settings"]) for one in listed]))
            for argument, listed in records.items()
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise unreadable(where, records, error) from error
    except ConfigError as error:
        raise CheckpointError(
            f"{where} was made with methods that cannot be made again ({error}); pass the same objects as "
            f"{' and '.join(f'{argument}=[…]' for argument in records)}"
        ) from error


def unreadable(where: str, records: Any, error: Exception) -> CheckpointError:
    """Return the error for records of another form."""
    return CheckpointError(
        f"{where} stores the methods {records!r} ({error!r}): expected a name and settings for each; take a file that "
        "`save` wrote"
    )


def records_of(agent_class: Any, parts: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the methods among ``parts`` of an agent as ``methods_given`` of the agent will return them."""
    given = {
        argument: checked_methods(parts[argument]) for argument in agent_class.method_arguments if argument in parts
    }
    return {argument: [method.record() for method in methods] for argument, methods in given.items() if methods}


def completed(records: Mapping[str, Sequence[Any]], where: str) -> dict[str, list[Any]]:
    """Return records as JSON gives them back, with the defaults of keys that a later version has added.

    Raises:
        CheckpointError: records of another form.
    """

    def complete(record: Mapping[str, Any]) -> dict[str, Any]:
        known = record["name"] in METHODS
        defaults = method_named(record["name"]).config_class().to_dict() if known else {}
        return {"name": record["name"], "settings": {**defaults, **record["settings"]}}

    try:
        return json.loads(json.dumps({argument: [*map(complete, listed)] for argument, listed in records.items()}))
    except (TypeError, KeyError) as error:
        raise unreadable(where, records, error) from error


def title_of(agent: Any) -> str:
    """Return what reports call an agent: its class, and the methods that it was given."""
    given = [
        f"{argument.removesuffix('methods').replace('_', ' ')}{record['name']}"
        for argument, listed in agent.methods_given.items()
        for record in listed
    ]
    return " with ".join(filter(None, [type(agent).__name__, ", ".join(given)]))


def require_same_methods(stored: Mapping[str, Sequence[Any]], own: Mapping[str, Sequence[Any]], where: str) -> None:
    """Raise unless an agent holds the methods that a checkpoint or run was made with.

    Raises:
        CheckpointError: with both.
    """
    if completed(stored, where) != completed(own, where):
        raise CheckpointError(
            f"{where} was made with {stored or 'no methods'}, the agent has {own or 'none'}: expected the same; make "
            "the agent with these methods and settings, or use load"
        )
