"""What tells the runs of a report apart: settings that differ between two runs stand in the labels of their rows.

Runs are seeds of one row only where everything that their numbers follow from is equal.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]
"""Settings by name, flat; names inside a method are ``method.name``."""

_BOOKKEEPING = frozenset(
    [
        # Which seeds and prices a study went through; each point has its own.
        *("seed", "seeds", "weights", "budgets", "methods", "failed"),
        # Measured, not set.
        *("random_return", "seconds", "p50_us"),
        # How a run was watched and where it ran: its weights and its final evaluation do not follow from these.
        *("device", "threads", "tensorboard", "log_every", "video_every", "eval_every", "checkpoint_every", "workers"),
    ]
)

_OF_EVERY_RUN = ("steps", "n_envs", "max_episode_steps", "penalty", "penalty_budget", "budget_input", "dataset")
"""Settings that runs of any agent have, so that they are compared between agents, too."""

_SYMBOLS = {"weight": "λ", "budget": "b"}


def facts_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the numbers of a run follow from, flat: its settings without bookkeeping.

    Args:
        settings: of a ``Comparison``: a run's (``run``, ``settings`` and lists of methods), or a study's.
    """
    # As a file gives them back, so that a tuple equals the list that was read.
    plain = json.loads(json.dumps(dict(settings), default=str))
    flat = dict(_flat(plain))
    if flat.get("n_envs", 1) != 1:
        # All episodes of a vector environment restart where it is saved, so training follows from it.
        flat |= {"checkpoint_every": plain.get("run", plain).get("checkpoint_every")}
    return flat


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if not prefix and key in ("run", "settings") and isinstance(value, Mapping):
            yield from _flat(value)
        elif isinstance(value, Mapping) and key not in _BOOKKEEPING:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) and "name" in one for one in value):
            for one in value:
                of = f"{prefix}{key.removesuffix('methods')}{one['name']}."
                yield from _flat({name: setting for name, setting in one.items() if name != "name"}, of)
        elif key not in _BOOKKEEPING:
            yield prefix + key, value


def differing(facts: Sequence[Facts]) -> list[str]:
    """Return the names that have several values in ``facts``, in order; a name that one lacks differs."""
    names = dict.fromkeys(name for one in facts for name in one)
    return [name for name in names if any(_value(one, name) != _value(facts[0], name) for one in facts)]


def _value(facts: Facts, name: str) -> Any:
    return facts.get(name, ("not recorded",))


def labels_apart(titles: Sequence[tuple[str, str]], facts: Sequence[Facts]) -> list[str]:
    """Return a label for each of N rows-to-be: its own, and whatever differs from others of the same title.

    Args:
        titles: (method, label) of each.
        facts: what each follows from.

    Returns:
        Labels; two are equal only where titles and facts are.
    """
    recorded = [one for one in facts if one]
    everywhere = [name for name in _OF_EVERY_RUN if all(name in one for one in recorded)]
    across = [name for name in differing(recorded) if name in everywhere]
    within: dict[tuple[str, str], list[Facts]] = {}
    for title, own in zip(titles, facts, strict=True):
        within.setdefault(title, []).append(own)
    names = {
        title: list(dict.fromkeys([*differing(list(filter(None, own))), *across])) for title, own in within.items()
    }
    labels = []
    for title, own in zip(titles, facts, strict=True):
        parts = [f"{_short(name, names[title])} = {_text(own, name)}" for name in names[title]] if own else []
        if not own and any(within[title]):
            parts = ["settings not recorded"]
        labels.append(", ".join([title[1], *parts]))
    return labels


def _short(name: str, names: Sequence[str]) -> str:
    """Return the last part of ``name``, or all of it where another of ``names`` ends alike."""
    last = name.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in names) == 1
    return _SYMBOLS.get(last, last) if alone else name


def _text(facts: Facts, name: str) -> str:
    if name not in facts:
        return "not recorded"
    value = facts[name]
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return repr(value) if float(f"{value:g}") != value else f"{value:g}"
    if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
        return "×".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
