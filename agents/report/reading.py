"""Reading comparisons that somebody else may have written: types and sizes of everything that is computed with."""

import json
from collections.abc import Mapping
from typing import Any

from budget_wrappers import files

CONVENTIONS = ("matmul", "all")

NUMBERS = (
    *("weight", "share_large", "budget", "us_per_action", "train_act_flops", "train_learn_flops", "duration_s"),
    "gate_information",
)
"""Numbers among a point's extras."""

TEXTS = ("control", "of", "what", "run", "file", "date", "machine", "film")
"""Texts among a point's extras."""

LARGEST = 1e100
"""Of a number in a comparison: sums and squares of such numbers are finite."""


def checked_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON object of a comparison, its points included, whose every entry is of its type.

    Raises:
        ValueError: an entry of another type, a number that is not finite or too large to compute with, a text that
            UTF-8 cannot hold.
    """
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        around = error.object[max(error.start - 40, 0) : error.end]
        raise ValueError(f"a text holds {around!a}: expected characters that UTF-8 can hold") from error
    _require(isinstance(record.get("env_id"), str), "env_id", record.get("env_id"), "a text")
    _require(record.get("convention", "matmul") in CONVENTIONS, "convention", record.get("convention"), "matmul or all")
    _require(isinstance(record.get("command", ""), str), "command", record.get("command"), "a text")
    versions, settings = record.get("versions", {}), record.get("settings", {})
    named = isinstance(versions, dict) and all(isinstance(version, str) for version in versions.values())
    _require(named, "versions", versions, "texts by name")
    _require(isinstance(settings, dict), "settings", settings, "an object")
    random = settings.get("random_return")
    _require(random is None or is_number(random), "random_return", random, "a finite number")
    _require(isinstance(record.get("points"), list), "points", record.get("points"), "a list")
    return {**record, "points": [checked_point(point) for point in record["points"]]}


def checked_point(point: Any) -> dict[str, Any]:
    """Return the JSON object of a point, whose every entry is of its type.

    Raises:
        ValueError: see ``checked_record``.
    """
    _require(isinstance(point, dict), "a point", point, "an object")
    for key in ("method", "label"):
        _require(isinstance(point.get(key), str), key, point.get(key), "a text")
    seed = point.get("seed")
    _require(type(seed) is int and 0 <= seed < 2**63, "seed", seed, "a whole number of 0 or more")
    for key in ("mean_return", "flops_per_step"):
        _require(is_number(point.get(key)), key, point.get(key), "a finite number")
    episodes, curve, extras = point.get("episodes", []), point.get("curve", []), point.get("extras", {})
    _require(isinstance(episodes, list), "episodes", episodes, "a list")
    for episode in episodes:
        sound = isinstance(episode, dict) and all(map(is_number, episode.values()))
        sound = sound and {"return", "flops", "length"} <= episode.keys() and episode["length"] > 0
        _require(sound, "an episode", episode, "numbers, with a return, flops and a length above 0")
    _require(isinstance(curve, list), "curve", curve, "a list")
    for pair in curve:
        sound = isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair))
        _require(sound, "a point of the curve", pair, "two numbers")
    _require(isinstance(extras, dict), "extras", extras, "an object")
    _require(isinstance(extras.get("baseline", False), bool), "baseline", extras.get("baseline"), "true or false")
    for key in NUMBERS:
        _require(extras.get(key) is None or is_number(extras[key]), key, extras.get(key), "a finite number")
    for key in TEXTS:
        _require(isinstance(extras.get(key), str | None), key, extras.get(key), "a text")
    settings = extras.get("settings")
    _require(isinstance(settings, dict | None), "settings", settings, "an object")
    shares, timeline = extras.get("shares"), extras.get("timeline")
    sound = shares is None or (isinstance(shares, dict) and all(map(is_number, shares.values())))
    _require(sound, "shares", shares, "numbers by name")
    _require(
        timeline is None or _is_timeline(timeline), "timeline", timeline, "names, and a choice and a reward a step"
    )
    return point


def _is_timeline(timeline: Any) -> bool:
    if not isinstance(timeline, dict):
        return False
    choices, names, rewards = (timeline.get(key) for key in ("choices", "names", "rewards"))
    if not all(isinstance(one, list) for one in (choices, names, rewards)):
        return False
    texts = all(isinstance(name, str) for name in (*choices, *names))
    return texts and all(map(is_number, rewards)) and len(choices) == len(rewards)


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a number that can be computed with."""
    return files.is_number(value, LARGEST)


def _require(holds: bool, name: str, value: Any, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {str(value)[:100]!r}: expected {expected}")
