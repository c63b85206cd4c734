"""Agents with Stable-Baselines3's habits, each owning a meter: SAC, TD3, DQN, CQL and GAIL, and recipes made of them.

A name is loaded when it is first used (PEP 562), so ``import agents`` itself loads nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

import agents.former

if TYPE_CHECKING:  # what type checkers and editors read; a test holds it equal to _HOMES
    from agents.cql import CQL, CQLConfig, DiscreteCQL, DiscreteCQLConfig
    from agents.dqn import DQN, DQNConfig
    from agents.gail import GAIL, GAILConfig
    from agents.loop.method import Method
    from agents.methods.asymmetric import Asymmetric, AsymmetricConfig
    from agents.methods.bexa import BexaCQL, BexaDiscreteCQL, BexaDQN, BexaSAC, BexaTD3
    from agents.methods.bexa_config import (
        BexaCQLConfig,
        BexaDiscreteCQLConfig,
        BexaDQNConfig,
        BexaSACConfig,
        BexaTD3Config,
    )
    from agents.methods.eaude import (
        DistillDiscreteCQL,
        DistillDiscreteCQLConfig,
        DistillDQN,
        DistillDQNConfig,
        EauDeDiscreteCQL,
        EauDeDiscreteCQLConfig,
        EauDeDQN,
        EauDeDQNConfig,
        EauDeSAC,
        EauDeSACConfig,
        EauDeTD3,
        EauDeTD3Config,
        PolyPruneDiscreteCQL,
        PolyPruneDiscreteCQLConfig,
        PolyPruneDQN,
        PolyPruneDQNConfig,
        PolyPruneSAC,
        PolyPruneSACConfig,
        PolyPruneTD3,
        PolyPruneTD3Config,
    )
    from agents.methods.exits import Exits
    from agents.methods.exits_config import ExitsConfig
    from agents.methods.polyprune import PolyPrune
    from agents.methods.polyprune_config import PolyPruneConfig
    from agents.methods.population import Population
    from agents.methods.population_config import PopulationConfig
    from agents.methods.units import Units
    from agents.methods.units_config import UnitsConfig
    from agents.methods.xinet import (
        XiNetCQL,
        XiNetCQLConfig,
        XiNetDiscreteCQL,
        XiNetDiscreteCQLConfig,
        XiNetDQN,
        XiNetDQNConfig,
        XiNetSAC,
        XiNetSACConfig,
        XiNetTD3,
        XiNetTD3Config,
    )
    from agents.sac import SAC, SACConfig
    from agents.td3 import TD3, TD3Config

_HOMES = {
    "cql": ("CQL", "CQLConfig", "DiscreteCQL", "DiscreteCQLConfig"),
    "dqn": ("DQN", "DQNConfig"),
    "gail": ("GAIL", "GAILConfig"),
    "loop.method": ("Method",),
    "methods.asymmetric": ("Asymmetric", "AsymmetricConfig"),
    "methods.bexa": ("BexaCQL", "BexaDQN", "BexaDiscreteCQL", "BexaSAC", "BexaTD3"),
    "methods.bexa_config": (
        "BexaCQLConfig",
        "BexaDQNConfig",
        "BexaDiscreteCQLConfig",
        "BexaSACConfig",
        "BexaTD3Config",
    ),
    "methods.eaude": (
        "DistillDQN",
        "DistillDQNConfig",
        "DistillDiscreteCQL",
        "DistillDiscreteCQLConfig",
        "EauDeDQN",
        "EauDeDQNConfig",
        "EauDeDiscreteCQL",
        "EauDeDiscreteCQLConfig",
        "EauDeSAC",
        "EauDeSACConfig",
        "EauDeTD3",
        "EauDeTD3Config",
        "PolyPruneDQN",
        "PolyPruneDQNConfig",
        "PolyPruneDiscreteCQL",
        "PolyPruneDiscreteCQLConfig",
        "PolyPruneSAC",
        "PolyPruneSACConfig",
        "PolyPruneTD3",
        "PolyPruneTD3Config",
    ),
    "methods.exits": ("Exits",),
    "methods.exits_config": ("ExitsConfig",),
    "methods.polyprune": ("PolyPrune",),
    "methods.polyprune_config": ("PolyPruneConfig",),
    "methods.population": ("Population",),
    "methods.population_config": ("PopulationConfig",),
    "methods.units": ("Units",),
    "methods.units_config": ("UnitsConfig",),
    "methods.xinet": (
        "XiNetCQL",
        "XiNetCQLConfig",
        "XiNetDQN",
        "XiNetDQNConfig",
        "XiNetDiscreteCQL",
        "XiNetDiscreteCQLConfig",
        "XiNetSAC",
        "XiNetSACConfig",
        "XiNetTD3",
        "XiNetTD3Config",
    ),
    "sac": ("SAC", "SACConfig"),
    "td3": ("TD3", "TD3Config"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Load the public name ``name``, once: the next look-up finds it as an ordinary global."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
