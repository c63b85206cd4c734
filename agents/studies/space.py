"""Search spaces: what each key of a configuration is drawn from, read from TOML, drawn with a seed.

    learning_rate = { q_log_uniform = [1e-4, 7e-4, 1e-4] }
    budget = { choice = [0.0, 0.2, 0.4] }
    net_arch = { value = [256, 256] }

``q_log_uniform = [low, high, q]``: log-uniform between the ends, rounded to a multiple of q, as the published searches
of BEXA name it.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from budget_wrappers.errors import ConfigError

KINDS = ("q_log_uniform", "choice", "value")


@dataclass(frozen=True)
class Draw:
    """What one key is drawn from.

    Attributes:
        kind: one of ``KINDS``.
        of: ``(low, high, q)``, the choices, or the one value.
    """

    kind: str
    of: Any

    def __call__(self, rng: np.random.Generator) -> Any:
        """Return one value."""
        if self.kind == "value":
            return self.of
        if self.kind == "choice":
            return self.of[int(rng.integers(len(self.of)))]
        low, high, q = self.of
        drawn = math.exp(rng.uniform(math.log(low), math.log(high)))
        # Rounded within the ends, and to the digits that q has: 3 · 1e-4 is 0.00030000000000000003.
        fewest, most = steps_between(low, high, q)
        steps = min(max(round(drawn / q), fewest), most)
        return float(f"{steps * q:.12g}")


def steps_between(low: float, high: float, q: float) -> tuple[int, int]:
    """Return the smallest and the largest number of steps ``q`` that is between the ends, which rounding may blur."""
    return math.ceil(low / q - 1e-9), math.floor(high / q + 1e-9)


def read_space(path: Path) -> dict[str, Draw]:
    """Return the space of a TOML file.

    Raises:
        ConfigError: a file that cannot be read, or an entry that is none of ``KINDS``.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"space={str(path)!r} cannot be read ({error}): expected a TOML file of draws") from error
    return space_of(table)


def space_of(table: Mapping[str, Any]) -> dict[str, Draw]:
    """Return the space of a table.

    Raises:
        ConfigError: an entry that is none of ``KINDS``, or ends that nothing can be drawn between.
    """
    space = {}
    for key, entry in table.items():
        if not isinstance(entry, Mapping) or len(entry) != 1 or next(iter(entry)) not in KINDS:
            raise ConfigError(
                f"{key} = {entry!r} in a search space: expected {{ {' | '.join(KINDS)} = … }}, one of them"
            )
        ((kind, of),) = entry.items()
        if kind == "choice" and not (isinstance(of, list) and of):
            raise ConfigError(f"{key}: choice = {of!r}; expected a list of one value at least")
        if kind == "q_log_uniform":
            numbers = isinstance(of, list) and len(of) == 3 and all(isinstance(n, int | float) for n in of)
            sound = numbers and 0 < of[0] <= of[1] < math.inf and 0 < of[2] < math.inf
            if not sound or np.greater(*steps_between(*of)):
                raise ConfigError(
                    f"{key}: q_log_uniform = {of!r}; expected [low, high, q] with 0 < low <= high, q > 0, all finite, "
                    "and a multiple of q from low to high"
                )
        space[key] = Draw(kind, of)
    if not space:
        raise ConfigError("an empty search space: expected one key at least, such as learning_rate")
    return space


def draw(space: Mapping[str, Draw], seed: int, number: int) -> dict[str, Any]:
    """Return the settings of configuration ``number``; they depend on nothing but the space, the seed and it."""
    rng = np.random.default_rng([seed, number])
    return {key: one(rng) for key, one in space.items()}
