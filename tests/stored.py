"""What benchmarks stored, read once, and how documents word it."""

import functools
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WORDS = ("no", "one", "two", "three", "four", "five", "six")

FENCE = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[−+-]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
"""A number in prose; digits that follow a letter or a point belong to a name, such as Pendulum-v1."""


@functools.cache
def stored(path: str) -> Any:
    """Return the JSON file ``path`` of ``benchmarks/results``."""
    return json.loads((RESULTS / path).read_text())


def prose(page: str) -> str:
    """Return a page of the repository without fenced blocks, code, images and addresses; white space is one space."""
    text = FENCE.sub(" ", (ROOT / page).read_text(encoding="utf-8"))
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", " ", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "`…`", text)
    return re.sub(r"\s+", " ", text)


def said(value: float, digits: int = 1) -> str:
    """Return a number as documents write it."""
    return f"{value:,.{digits}f}".replace("-", "−")


def percent(value: float, digits: int = 0) -> str:
    """Return a share without its sign, to go before " %"."""
    return f"{100 * value:.{digits}f}"


def numbers_beside(text: str, claims: list[str]) -> list[str]:
    """Return the numbers of ``text``, with some words around each, that stand in none of ``claims``."""
    for claim in sorted(claims, key=len, reverse=True):
        text = text.replace(claim, " ⟨claim⟩ ")
    return [text[max(found.start() - 40, 0) : found.end() + 20] for found in NUMBER.finditer(text)]
