"""Budget methods on the command line: ``--with exits polyprune``, and every key of a method as an option.

A key is given with its method, ``--exits.budget 0.3``, or plainly, ``--budget 0.3``, where one method alone has it. A
key that several methods have, or the agent or the run too, is always given with its owner, as in ``--agent.gamma``.
A file has the same keys: ``with = ["exits"]``, ``budget = 0.3`` or ``exits.budget = 0.3``.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from agents.cli.arguments import Files, words_after
from agents.cli.tables import entry_of, key_of, keys_in
from agents.loop.known_methods import METHODS, method_named
from agents.loop.method import Method, MethodConfig, checked_methods
from agents.runs.run_config import RunConfig
from budget_wrappers.errors import ConfigError


@dataclass(frozen=True)
class Group:
    """The methods that one argument of an agent is given.

    Attributes:
        argument: of the agent, such as ``methods`` or ``large_methods``.
        methods: their classes by name.
    """

    argument: str
    methods: Mapping[str, type[Method]]

    @property
    def name(self) -> str:
        """What the options of the group begin with: ``large`` for ``large_methods``, nothing for ``methods``."""
        return self.argument.removesuffix("methods").rstrip("_")

    @property
    def prefix(self) -> str:
        """``name`` with a dot, where there is a name."""
        return f"{self.name}." if self.name else ""


def groups_of(agent_class: Any, files: Files, arguments: Sequence[str]) -> list[Group]:
    """Return the methods that a command line gives an agent, or else the last of its files that names any.

    Raises:
        ConfigError: an unknown method, a method named twice or held by the agent anyway, or an option of a
            method that is not given.
    """
    preset = agent_class.preset(agent_class.config_class())
    groups = []
    for argument in agent_class.method_arguments:
        option = f"{Group(argument, {}).prefix}with"
        listed = [*(entry_of(table, option) for _, table in files), words_after(f"--{option}", arguments)]
        names = next((names for names in reversed(listed) if names is not None), [])
        kinds = [method_named(str(name)) for name in (names if isinstance(names, list) else [names])]
        checked_methods([*preset, *(kind() for kind in kinds)])
        groups.append(Group(argument, {kind.name: kind for kind in kinds}))
    given = [key for _, table in files for key in keys_in(table)]
    require_holders(groups, [*given, *(key_of(word) for word in arguments if word.startswith("--"))])
    return groups


def require_holders(groups: Iterable[Group], keys: Iterable[str]) -> None:
    """Raise where one of ``keys`` is that of a method that is not given.

    Raises:
        ConfigError: with the key and the method.
    """
    for key in keys:
        for group in groups:
            name = key.removeprefix(group.prefix).partition(".")[0]
            if key.startswith(f"{group.prefix}{name}.") and name in METHODS.keys() - group.methods.keys():
                words = " ".join([f"--{group.prefix}with", *group.methods, name])
                raise ConfigError(f"{key} is a key of the method {name}, which is not given: expected {words}; add it")


def fields_for(groups: Iterable[Group]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields of a form, as ``make_dataclass`` takes them: ``with``, and the keys of each method."""
    helped = (
        "budget methods; the keys of each become options, which --help then lists, too. Where only one of them has a "
        "key, its name can be left out: --budget for --exits.budget."
    )
    chosen = Annotated[tuple[Literal[tuple(METHODS)], ...], tyro.conf.arg(name="with", help=helped)]
    for group in groups:
        own: list[tuple[str, Any, Any]] = [("with_", chosen, tuple(group.methods))]
        for name, kind in group.methods.items():
            keys = unchecked(kind.config_class)
            own.append((name, keys, dataclasses.field(default_factory=keys)))
        if not group.name:
            yield from own
            continue
        form = dataclasses.make_dataclass(group.name.capitalize(), own, frozen=True)
        yield group.name, form, dataclasses.field(default_factory=form)


def unchecked(config_class: type[MethodConfig]) -> type[MethodConfig]:
    """Return a class with the same keys that checks none of them, as tyro puts what a nested check raises in a box."""
    members = {"__post_init__": lambda self: None, "__doc__": config_class.__doc__}
    return type(config_class.__name__, (config_class,), members)


def aliases_of(groups: Iterable[Group], agent_class: Any, known: Iterable[str]) -> dict[str, list[str]]:
    """Return the keys that are given plainly, each with the options that it may mean.

    Args:
        groups: the methods.
        agent_class: of the agent; a key that a method has, too, is also ``agent.key``, one of the run ``train.key``.
        known: every option; those of the command itself, such as ``config``, keep their meaning.
    """
    aliases: dict[str, list[str]] = {}
    for group in groups:
        for name, kind in group.methods.items():
            for field in dataclasses.fields(kind.config_class):
                aliases.setdefault(f"{group.prefix}{field.name}", []).append(f"{group.prefix}{name}.{field.name}")
    for key in aliases.keys() & set(known):
        owners = {"agent": agent_class.config_class, "train": RunConfig}
        owner = next((name for name, config in owners.items() if key in config.__dataclass_fields__), None)
        if owner is None:
            del aliases[key]
        else:
            aliases[key].insert(0, f"{owner}.{key}")
            aliases[f"{owner}.{key}"] = [key]
    return aliases


def methods_of(groups: Iterable[Group], options: Any) -> dict[str, list[Method]]:
    """Return new methods with the settings of parsed ``options``, by the argument of the agent that takes them.

    Raises:
        ConfigError: a setting out of bounds.
    """
    made: dict[str, list[Method]] = {}
    for group in groups:
        form = getattr(options, group.name) if group.name else options
        if group.methods:
            made[group.argument] = [kind(**vars(getattr(form, name))) for name, kind in group.methods.items()]
    return made
