"""What a meter has counted so far, as a record."""

from collections.abc import Mapping
from types import MappingProxyType


class Totals(dict[str, int]):
    """``{"act": …, "charged": …, "learn": …, "rows": …}`` so far; a copy, so changing it does nothing.

    Attributes:
        by_name: acting FLOPs of each watched module or named charge.
    """

    def __init__(self, values: Mapping[str, int], by_name: Mapping[str, int]) -> None:
        super().__init__(values)
        self.by_name = MappingProxyType(dict(by_name))
