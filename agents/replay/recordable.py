"""What of a step can be recorded: numbers that are finite in the precision in which a replay holds them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from budget_wrappers.errors import NonFiniteError
from budget_wrappers.functional.finite import storable


def require_recordable(observation: Any, action: Any, reward: Any, step: int, seed: int) -> None:
    """Raise unless a step can be read back into a replay, which holds float32.

    Raises:
        NonFiniteError: it names the number, the step and the seed of the episode.
    """
    parts = observation.values() if isinstance(observation, Mapping) else [observation]
    for name, value in (*(("observation", part) for part in parts), ("action", action), ("reward", reward)):
        array = np.asarray(value)
        if array.dtype.kind == "f" and not storable(array):
            raise NonFiniteError(
                f"the {name} of step {step} of the episode with seed {seed} is {value!r}: expected finite numbers in "
                "float32, as agents read them; mend the environment or the policy, nothing was written"
            )


__all__ = ["require_recordable"]
