"""The agents by the names that the command line and ``--methods`` give them, and the presets of each."""

import difflib
import importlib
import re
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
    "xinet-sac": ("agents.methods.xinet", "XiNetSAC"),
    "xinet-td3": ("agents.methods.xinet", "XiNetTD3"),
    "xinet-dqn": ("agents.methods.xinet", "XiNetDQN"),
    "xinet-cql": ("agents.methods.xinet", "XiNetCQL"),
    "xinet-discrete-cql": ("agents.methods.xinet", "XiNetDiscreteCQL"),
    "eaude-dqn": ("agents.methods.eaude", "EauDeDQN"),
    "eaude-discrete-cql": ("agents.methods.eaude", "EauDeDiscreteCQL"),
    "eaude-sac": ("agents.methods.eaude", "EauDeSAC"),
    "eaude-td3": ("agents.methods.eaude", "EauDeTD3"),
    "polyprune-dqn": ("agents.methods.eaude", "PolyPruneDQN"),
    "polyprune-discrete-cql": ("agents.methods.eaude", "PolyPruneDiscreteCQL"),
    "polyprune-sac": ("agents.methods.eaude", "PolyPruneSAC"),
    "polyprune-td3": ("agents.methods.eaude", "PolyPruneTD3"),
    "distill-dqn": ("agents.methods.eaude", "DistillDQN"),
    "distill-discrete-cql": ("agents.methods.eaude", "DistillDiscreteCQL"),
}

PRESETS = Path(__file__).parent.parent / "methods" / "presets"
"""Where the package keeps the settings of published studies: ``<recipe>/<name>.toml``."""

BUNDLED, POLICIES = "bundled", PRESETS / "policies"
"""First part of the path of a trained policy that comes with the package, such as ``bundled/half-cheetah``, and where
they are."""


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


def policy_file(path: str | Path) -> Path:
    """Return the file or folder of a trained policy: ``path``, or what the package has for ``bundled/NAME``.

    Raises:
        ConfigError: the package has no policy of that name; the message names the nearest, or all. Whether another
            path exists is not looked at.
    """
    path = Path(path)
    if len(path.parts) != 2 or path.parts[0] != BUNDLED or path.exists():
        return path
    known = sorted(one.stem for one in POLICIES.glob("*.safetensors"))
    if path.name not in known:
        raise ConfigError(f"no policy {str(path)!r} comes with this package; {nearest(path.name, known)}")
    return POLICIES / f"{path.name}.safetensors"


def slug(text: str) -> str:
    """Return ``text`` as a folder's name.

    >>> slug("bexa-sac, b = 0.2"), slug("sac:64,64")
    ('bexa-sac-b0.2', 'sac-64-64')
    """
    short = text.replace("λ", "w").replace(" = ", "")
    return re.sub(r"[^A-Za-z0-9._+]+", "-", short).strip("-.") or "policy"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the nearest of ``known``, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
