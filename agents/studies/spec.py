"""One word of ``--methods``: what is trained or taken, with which widths and settings.

``[NAME=]AGENT[/PRESET][+METHOD…][:WIDTHS][@KEY=VALUE…]``, such as ``sac:64,64``, ``asymmetric/swimmer``,
``sac+exits+polyprune:256,256`` or ``batch=bexa-sac@gate_training=batch_budget``; a control (``dense:16``, ``fit``,
``coin``, ``shuffled``, ``cheapest``, ``dearest``); a policy that was trained elsewhere (its path, or ``retrofit:PATH``
to give it exits); or a method of one's own, ``module:Class``.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agents.loop.known_methods import METHODS
from agents.studies.names import AGENTS, nearest, policy_file, preset_file
from budget_wrappers.errors import ConfigError

Kind = Literal["agent", "dense", "fit", "chooser", "policy", "retrofit", "contender"]

CHOOSERS = ("coin", "shuffled", "cheapest", "dearest")
"""Controls that choose among the exits or sub-policies of a method in its place."""
CONTROLS = ("dense", "fit", *CHOOSERS)

_SETTING = re.compile(r"@(?=[A-Za-z_][\w.\-]*=)")
_NAME = re.compile(r"([A-Za-z_][\w.\-]*)=(.+)", re.DOTALL)
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_WIDTHS = re.compile(r"\d+(,\d+)*")


@dataclass(frozen=True)
class MethodSpec:
    """A word of ``--methods``, taken apart.

    Attributes:
        word: as it was given, without its name.
        name: what its rows are called: the name given, or the word without its settings.
        kind: what it is.
        agent: of ``kind="agent"``, as ``agents.studies.names.AGENTS`` has it; of a control its word.
        preset: of the agent.
        methods: budget methods by name; ``large.exits`` is one of asymmetric's large sub-policy.
        widths: of the hidden layers, empty where none are given.
        settings: of agent and methods, by key.
        target: path of a policy, or ``module:Class``.
    """

    word: str
    name: str
    kind: Kind
    agent: str = ""
    preset: str | None = None
    methods: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    target: str = ""

    @property
    def control(self) -> bool:
        """Whether it is there to be compared with."""
        return self.agent in CONTROLS

    @property
    def runs_code(self) -> bool:
        """Whether using it imports a module, or may run what a file embeds."""
        return self.kind == "contender" or self.target.endswith(".zip")

    @classmethod
    def parse(cls, word: str) -> "MethodSpec":
        """Return what ``word`` says.

        Raises:
            ConfigError: it is none of the forms above; the message names the nearest.
        """
        named = _NAME.fullmatch(word) if not word.startswith("retrofit:") else None
        name = named[1] if named and "@" not in named[1] and ":" not in named[1] else None
        whole = named[2] if name else word
        body, *settings = _SETTING.split(whole)
        given = dict(_setting(word, text) for text in settings)
        parts: dict[str, Any] = {"word": whole, "name": name or body, "settings": given}
        if body.startswith("retrofit:"):
            return cls(kind="retrofit", target=_file(word, body.removeprefix("retrofit:")), **parts)
        head, _, widths = body.partition(":")
        if head not in CONTROLS and head.split("+")[0].split("/")[0] not in AGENTS:
            return cls._foreign(word, body, parts)
        if widths and not _WIDTHS.fullmatch(widths):
            raise ConfigError(f"methods: {word!r} has the widths {widths!r}: expected numbers, such as {head}:64,64")
        parts["widths"] = tuple(int(width) for width in widths.split(",")) if widths else ()
        if 0 in parts["widths"]:
            raise ConfigError(f"methods: {word!r} has a layer of 0 units: expected 1 or more; write {head}:64,64")
        if head in CONTROLS:
            return cls._control(word, head, parts)
        base, *methods = head.split("+")
        agent, _, preset = base.partition("/")
        for method in methods:
            plain = method.removeprefix("small.").removeprefix("large.")
            if plain not in METHODS:
                raise ConfigError(f"methods: {word!r} adds {method!r}; {nearest(plain, METHODS)}")
        if preset:
            preset_file(agent, preset)  # raises
        return cls(kind="agent", agent=agent, preset=preset or None, methods=tuple(methods), **parts)

    @classmethod
    def _control(cls, word: str, head: str, parts: dict[str, Any]) -> "MethodSpec":
        if parts["settings"]:
            raise ConfigError(
                f"methods: {word!r} has settings: expected a control as it is, whose settings are those of the methods "
                f"beside it; write {head}{':16' if head == 'dense' else ''}"
            )
        if (head == "dense") != bool(parts["widths"]):
            needed = "widths, such as dense:16" if head == "dense" else f"none, as it follows each method; write {head}"
            raise ConfigError(f"methods: {word!r}: expected {needed}")
        kind: Kind = "chooser" if head in CHOOSERS else "dense" if head == "dense" else "fit"
        return cls(kind=kind, agent=head, **parts)

    @classmethod
    def _foreign(cls, word: str, body: str, parts: dict[str, Any]) -> "MethodSpec":
        if _CLASS.fullmatch(body):
            return cls(kind="contender", target=body, **parts)
        if "/" in body or "\\" in body or Path(body).suffix or Path(body).exists():
            return cls(kind="policy", target=_file(word, body), **parts)
        known = [*AGENTS, *CONTROLS, "retrofit:PATH", "module:Class"]
        raise ConfigError(f"methods: there is no method {body!r}; {nearest(body.split('+')[0].split(':')[0], known)}")


def _file(word: str, path: str) -> str:
    if not policy_file(path).exists():
        raise ConfigError(
            f"methods: {word!r} names {path!r}, which does not exist: expected a trained policy; check it"
        )
    return path


def _setting(word: str, text: str) -> tuple[str, Any]:
    """Return key and value of ``key=value``, the value as TOML reads it, a list without its brackets, or a text."""
    key, _, value = text.partition("=")
    if not value:
        raise ConfigError(f"methods: {word!r} sets {key} to nothing: expected a value; write @{key}=…")
    for form in (value, f"[{value}]"):
        try:
            read = tomllib.loads(f"value = {form}")["value"]
            json.dumps(read)
        except (tomllib.TOMLDecodeError, TypeError):  # a date, which nothing is set to, is a text
            continue
        return key.replace("-", "_"), read
    return key.replace("-", "_"), value
