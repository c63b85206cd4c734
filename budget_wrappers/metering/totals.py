"""What a meter has counted so far, as a record."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from budget_wrappers.errors import CheckpointError, CostError
from budget_wrappers.metering.checks import whole


class Totals(dict[str, int]):
    """``{"act": …, "charged": …, "learn": …, "rows": …}`` so far; a copy, so changing it does nothing.

    Attributes:
        by_name: acting FLOPs of each watched module or named charge.
    """

    def __init__(self, values: Mapping[str, int], by_name: Mapping[str, int]) -> None:
        super().__init__(values)
        self.by_name = MappingProxyType(dict(by_name))


def checked_state(state: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the counts and the FLOPs by name of a meter's ``state_dict()``.

    Raises:
        CheckpointError: missing or unknown keys, or values that are no counts.
    """
    expected = {"act", "charged", "learn", "rows", "by_name"}
    if set(state) != expected or not isinstance(state["by_name"], Mapping):
        raise CheckpointError(
            f"a meter's state has the keys {sorted(state)}; expected {sorted(expected)}, as state_dict() gives them"
        )
    try:
        counts = {key: whole(state[key], key, most=None) for key in expected - {"by_name"}}
        by_name = {str(key): whole(value, str(key), most=None) for key, value in state["by_name"].items()}
    except CostError as error:
        raise CheckpointError(f"a meter's state holds a value that is no count: {error}") from error
    return counts, by_name
