"""The agents by the names that the command line and ``--methods`` give them, and the presets of each."""

import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
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

PRESETS = Path(__file__).parent.parent / "methods" / "presets"
"""Where the package keeps the settings of published studies: ``<recipe>/<name>.toml``."""


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


def presets_of(recipe: str) -> list[str]:
    """Return the names of a recipe's presets."""
    return sorted(path.stem for path in (PRESETS / recipe).glob("*.toml"))


def preset_file(recipe: str, name: str) -> Path:
    """Return the file of a preset.

    Raises:
        ConfigError: no such preset; the message names the nearest, or all.
    """
    known = presets_of(recipe)
    if name not in known:
        raise ConfigError(
            f"preset={name!r}: {recipe} has no such preset; "
            + (nearest(name, known) if known else "it has none at all: pass the options themselves")
        )
    return PRESETS / recipe / f"{name}.toml"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the nearest of ``known``, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
