"""Films beside a comparison, which may be a stranger's: what is embedded into a page, and what is not."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.report.tradeoff import Comparison
from budget_wrappers.errors import CheckpointError
from budget_wrappers.files import inside, opened_to_read

LARGEST_FILM, LARGEST_OF_ALL = 6_000_000, 24_000_000
"""Bytes of one film and of all films that a page holds; others are named by their path."""


@dataclass(frozen=True)
class Film:
    """A film that was read.

    Attributes:
        content: of the file.
        kind: ``image/gif`` or ``video/mp4``, told by its first bytes.
    """

    content: bytes
    kind: str

    @property
    def address(self) -> str:
        """The film as an address that needs no file."""
        return f"data:{self.kind};base64,{base64.b64encode(self.content).decode('ascii')}"


def with_films(comparison: Comparison, folder: Path) -> Comparison:
    """Return ``comparison`` with each film's file in place of its path; a film that cannot be shown keeps its path.

    Only regular files below ``folder`` are read, no links, as a stranger's comparison could name any path.

    Args:
        comparison: read from ``folder``.
        folder: of the comparison, below which its runs lie.
    """
    left, points = LARGEST_OF_ALL, []
    for point in comparison.points:
        film = _film(folder, point.extras)
        if film is not None and len(film.content) <= left:
            left -= len(film.content)
            point = replace(point, extras={**point.extras, "film": film})
        points.append(point)
    return replace(comparison, points=points)


def _film(folder: Path, extras: Mapping[str, Any]) -> Film | None:
    """Return the film that ``extras`` name, ``None`` for none, and for one that is not there, too large or no film."""
    name, run = extras.get("film"), extras.get("run") or ""
    if not isinstance(name, str) or not name:
        return None
    try:
        with opened_to_read(inside(folder, run, name)) as file:
            content = file.read(LARGEST_FILM + 1)
    except (OSError, ValueError, CheckpointError):
        return None
    kind = kind_of(content)
    return Film(content, kind) if kind is not None and len(content) <= LARGEST_FILM else None


def kind_of(content: bytes) -> str | None:
    """Return the kind of a film by its first bytes, ``None`` for anything else."""
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    return "video/mp4" if content[4:8] == b"ftyp" else None
