"""The agents by the names that the command line gives them."""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

from budget_wrappers.errors import ConfigError

AGENTS = {
    "sac": ("agents.sac", "SAC"),
    "td3": ("agents.td3", "TD3"),
    "dqn": ("agents.dqn", "DQN"),
    "cql": ("agents.cql", "CQL"),
    "discrete-cql": ("agents.cql", "DiscreteCQL"),
    "asymmetric": ("agents.methods.asymmetric", "Asymmetric"),
    "bexa-sac": ("agents.methods.bexa", "BexaSAC"),
    "bexa-td3": ("agents.methods.bexa", "BexaTD3"),
    "bexa-dqn": ("agents.methods.bexa", "BexaDQN"),
    "bexa-cql": ("agents.methods.bexa", "BexaCQL"),
    "bexa-discrete-cql": ("agents.methods.bexa", "BexaDiscreteCQL"),
}


def agent_named(name: str) -> Any:
    """Return the agent class of a name of ``AGENTS``.

    Raises:
        ConfigError: no agent of that name; the message names the nearest.
    """
    if name not in AGENTS:
        raise ConfigError(f"there is no agent {name!r}; {nearest(name, AGENTS)}")
    module, attribute = AGENTS[name]
    return getattr(importlib.import_module(module), attribute)


def agent_called(class_name: str, where: str) -> Any:
    """Return the agent class that a run or checkpoint names.

    Raises:
        ConfigError: it is none of this package's.
    """
    for name, (_, attribute) in AGENTS.items():
        if attribute == class_name:
            return agent_named(name)
    known = ", ".join(attribute for _, attribute in AGENTS.values())
    raise ConfigError(f"{where} holds an agent {class_name!r}: expected one of {known}; use the program that made it")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the nearest of ``known``, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
