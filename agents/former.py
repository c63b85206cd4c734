"""Modules under the names they had until the folders were named for what they hold.

Stored runs name environments as ``agents.recipes.environments:budget/…``, and scripts import from ``agents.recipes``
and ``agents.common``: both still find their module, with a ``DeprecationWarning``.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

PACKAGES = ("agents.common", "agents.recipes")
PLACES = {
    "replay": (
        "buffers",
        "dataset",
        "demonstrations",
        "hindsight",
        "hindsight_options",
        "option_replay",
        "prioritized",
    ),
    "nets": ("mlp", "moments", "networks", "noise", "optim", "td"),
    "loop": (
        *("acting", "agent", "callbacks", "checkpoint", "collect", "evaluate", "explorer", "header"),
        *("interface", "offline", "spaces", "versions"),
    ),
    "report": ("cloud", "labels", "pictures", "report", "timeline", "tradeoff", "video"),
    "runs": ("interrupt", "log", "monitors", "run", "run_config", "workers"),
}
RECIPES = {
    "methods": ("asymmetric", "asymmetric_config", "bexa", "bexa_config", "budget_input", "exits"),
    "studies": (
        *("environments", "ray_tasks", "retrofit", "sizes", "sizes_table", "sizing", "space", "sweep"),
        *("sweep_table", "tradeoff", "training"),
    ),
}
NOW = {f"agents.common.{name}": f"agents.{place}.{name}" for place, names in PLACES.items() for name in names}
NOW |= {f"agents.common.{name}": f"agents.{name}" for name in ("behaviour_cloning", "config")}
NOW |= {f"agents.recipes.{name}": f"agents.{place}.{name}" for place, names in RECIPES.items() for name in names}
NOW["agents.common.files"] = "budget_wrappers.files"
NOW |= {f"agents.recipes.{name}": "agents.methods.bexa" for name in ("bexa_cql", "bexa_dqn")}
"""Former name of each module -> its name now."""


class FormerNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of ``NOW``; it is asked last, after every other finder has found nothing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for a former name, ``None`` for any other."""
        if fullname not in NOW and fullname not in PACKAGES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname in PACKAGES)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Return ``None``: a new module, which ``exec_module`` replaces."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module as it is called now in the place of ``module``; a former package stays empty."""
        if module.__name__ in NOW:
            now = NOW[module.__name__]
            warnings.warn(f"{module.__name__} is now {now}", DeprecationWarning, stacklevel=2)
            sys.modules[module.__name__] = importlib.import_module(now)


sys.meta_path.append(FormerNames())
