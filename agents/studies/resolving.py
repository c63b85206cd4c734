"""What a word of ``--methods`` trains: the class of its agent, and every setting of the agent and its methods."""

import copy
import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from agents.config import unknown_key
from agents.loop.known_methods import method_named
from agents.studies.names import agent_named, preset_file
from agents.studies.spec import MethodSpec
from budget_wrappers.errors import ConfigError

PLAIN = {
    "asymmetric": "sac",
    "bexa-sac": "sac",
    "bexa-td3": "td3",
    "bexa-dqn": "dqn",
    "xinet-sac": "sac",
    "xinet-td3": "td3",
    "xinet-dqn": "dqn",
    "eaude-dqn": "dqn",
    "eaude-sac": "sac",
    "eaude-td3": "td3",
    "polyprune-dqn": "dqn",
    "polyprune-sac": "sac",
    "polyprune-td3": "td3",
    "distill-dqn": "dqn",
}
"""The agent without its budget method, where the name of the agent does not say it."""


def require_own_key(word: str, key: str) -> None:
    """Raise for the seed: a study goes through ``--seeds``.

    Raises:
        ConfigError: with the remedy.
    """
    if key.rpartition(".")[2] == "seed":
        raise ConfigError(f"methods: {word!r} sets {key}: expected settings besides the seed; pass --seeds")


@dataclass
class Recipe:
    """An agent and what it is told.

    Attributes:
        agent: its name.
        settings: of the agent, by key.
        methods: settings of each method that it is given, by argument (``methods``, ``large_methods``) and name.
    """

    agent: str
    settings: dict[str, Any] = field(default_factory=dict)
    methods: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: MethodSpec, common: Mapping[str, Any], own: Mapping[str, Any], steps: int) -> Self:
        """Return the recipe of ``spec``.

        Args:
            spec: of an agent.
            common: settings of all agents that have the key; its preset overrides them, then its widths, then ``own``,
                then the settings in its word.
            own: further settings of this method.
            steps: of its training: no replay holds more, and a master that is not told when begins to learn within its
                first tenth.

        Raises:
            ConfigError: an unknown key, a key that several have, a value out of bounds, an agent that learns from data,
                or a method for an argument that the agent does not have.
        """
        recipe = cls(spec.agent)
        kind = recipe.agent_class
        if kind.offline:
            raise ConfigError(
                f"methods: {spec.word!r} learns from a data set: expected agents that train in an environment; train "
                "it with `budget train --dataset` and name its run folder here"
            )
        known = recipe.keys
        recipe.settings = {key: value for key, value in common.items() if key in known}
        if spec.preset:
            table = tomllib.loads(preset_file(spec.agent, spec.preset).read_text())
            recipe.settings |= {key: value for key, value in table.items() if key in known}
        if spec.widths:
            recipe.settings["net_arch"] = spec.widths
        for word in spec.methods:
            size, _, name = word.rpartition(".")
            argument = f"{size}_methods" if size else "methods"
            if argument not in kind.method_arguments:
                takes = " or ".join(
                    one.removesuffix("methods").replace("_", ".") + name for one in kind.method_arguments
                )
                raise ConfigError(
                    f"methods: {spec.agent} takes no {word}: expected {takes}; write {spec.agent}+{takes}"
                )
            recipe.methods.setdefault(argument, {})[name] = {}
        given = {**own, **spec.settings}
        for key, value in given.items():
            require_own_key(spec.word, key)
            recipe.set(key, value)
        recipe.check()
        config = recipe.config
        recipe.settings["buffer_size"] = min(config.buffer_size, steps)
        if "master_learning_starts" in known and not {"master_learning_starts", "agent.master_learning_starts"} & {
            *given
        }:
            recipe.settings["master_learning_starts"] = min(config.master_learning_starts, steps // 10)
        return recipe

    @property
    def agent_class(self) -> Any:
        """Class of the agent."""
        return agent_named(self.agent)

    @property
    def keys(self) -> list[str]:
        """Keys of the agent."""
        return [one.name for one in dataclasses.fields(self.agent_class.config_class)]

    def owners(self, key: str) -> list[dict[str, Any]]:
        """Return the tables that ``key`` may stand in: of the agent, and of its methods.

        Args:
            key: ``key``, or with its owner ``agent.key``, ``exits.key`` or ``large.exits.key``.
        """
        owner, _, name = key.rpartition(".")
        found = [self.settings] if owner in ("", "agent") and name in self.keys else []
        for argument, methods in self.methods.items():
            size = argument.removesuffix("methods").replace("_", ".")
            for method, table in methods.items():
                names = [one.name for one in dataclasses.fields(method_named(method).config_class)]
                if owner in ("", method, f"{size}{method}") and name in names:
                    found.append(table)
        return found

    def set(self, key: str, value: Any) -> None:
        """Set one key.

        Raises:
            ConfigError: nobody has it, or several have.
        """
        found = self.owners(key)
        name = key.rpartition(".")[2]
        if not found:
            methods = [one for methods in self.methods.values() for one in methods]
            known = [
                *self.keys,
                *(f.name for one in methods for f in dataclasses.fields(method_named(one).config_class)),
            ]
            raise unknown_key(key, known, " with ".join([self.agent, *methods]))
        if len(found) > 1:
            methods = " or ".join(f"{one}.{name}" for methods in self.methods.values() for one in methods)
            raise ConfigError(f"{key} may mean several settings of {self.agent}: expected agent.{name} or {methods}")
        # One value stands for a list of one: `small_net_arch=8`.
        listed = isinstance(self._default(name), tuple) and not isinstance(value, list | tuple)
        found[0][name] = (value,) if listed else tuple(value) if isinstance(value, list) else value

    def _default(self, name: str) -> Any:
        """Return the default of a key of the agent or of one of its methods."""
        methods = [method_named(one).config_class for methods in self.methods.values() for one in methods]
        fields = [one for kind in (self.agent_class.config_class, *methods) for one in dataclasses.fields(kind)]
        return next(one.default for one in fields if one.name == name)

    def with_(self, key: str, value: Any) -> Self:
        """Return a copy with one key set."""
        other = copy.deepcopy(self)
        other.set(key, value)
        return other

    def get(self, key: str) -> Any:
        """Return what ``key`` is, its default where nothing is set, ``None`` where nobody has it."""
        found = self.owners(key)
        if not found:
            return None
        if found[0] is self.settings:
            return getattr(self.config, key)
        method = next(name for methods in self.methods.values() for name, table in methods.items() if table is found[0])
        return found[0].get(key, getattr(method_named(method).config_class(), key))

    @property
    def config(self) -> Any:
        """The agent's configuration."""
        return self.agent_class.config_class.of(self.settings)

    @property
    def records(self) -> dict[str, list[dict[str, Any]]]:
        """The methods as ``agent.methods_given`` has them."""
        return {
            argument: [method_named(name)(**table).record() for name, table in methods.items()]
            for argument, methods in self.methods.items()
        }

    @property
    def priced(self) -> list[str]:
        """Which of ``budget`` and ``weight`` a study goes through for this agent."""
        read = bool(self.get("budget_from_observation"))
        return [key for key in ("budget", "weight") if self.owners(key) and not (key == "budget" and read)]

    @property
    def conditioned(self) -> bool:
        """Whether one training answers to every budget."""
        return bool(self.owners("budget")) and bool(self.get("budget_from_observation"))

    @property
    def chooses(self) -> bool:
        """Whether something chooses while it acts: a master, or the gates of exits."""
        return self.agent == "asymmetric" or (bool(self.owners("acting")) and self.get("acting") == "early_exit")

    @property
    def plain(self) -> str:
        """Name of the agent without any budget method."""
        return PLAIN.get(self.agent, self.agent)

    def check(self) -> None:
        """Raise for a value out of bounds."""
        _ = self.config, self.records


__all__ = ["PLAIN", "Recipe"]
