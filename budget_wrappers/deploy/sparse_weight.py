"""A weight without its zeros, for products with one row: a copy that notices when the weight has changed."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from budget_wrappers.errors import MissingExtraError

CHECKED = 64
"""Numbers that are compared to tell whether a weight has changed."""


class SparseWeight:
    """A copy of the numbers in a weight that are not 0, row by row (CSR).

    Args:
        weight: ``(out, in)``, on the CPU.

    Raises:
        MissingExtraError: SciPy cannot be imported.
    """

    def __init__(self, weight: Tensor) -> None:
        array = weight.detach().numpy()
        self.csr = _scipy().csr_array(array)
        self._kernel = _kernel()
        self._version = _version(weight)
        self._counter = None if self._version is None else weight
        # Numbers that are not 0, evenly spread. Along one axis they are found in half the time.
        self._memory = array.reshape(-1) if array.flags.c_contiguous else array
        places = np.nonzero(self._memory)
        some = np.linspace(0, len(places[0]) - 1, min(CHECKED, len(places[0]))).astype(int)
        self._places = tuple(axis[some] for axis in places)
        self._numbers = self._memory[self._places].tobytes()

    def changed(self) -> bool:
        """Tell whether the weight is not what it was: torch has counted a change, or one of 64 numbers is another."""
        if self._counter is not None and self._counter._version != self._version:
            return True
        return self._memory[self._places].tobytes() != self._numbers

    def times(self, x: np.ndarray) -> np.ndarray:
        """Return ``x·Wᵀ``, ``(1, out)``, for one row ``x`` ``(1, in)``."""
        csr = self.csr
        if self._kernel is None or x.dtype != csr.dtype:
            return (csr @ x[0])[None]
        product = np.zeros((1, csr.shape[0]), csr.dtype)
        self._kernel(*csr.shape, csr.indptr, csr.indices, csr.data, x, product)
        return product


def _version(weight: Tensor) -> int | None:
    """Return how many changes of a tensor torch has counted, ``None`` of one that was made in inference mode."""
    try:
        return weight._version
    except RuntimeError:
        return None


def _scipy() -> Any:
    try:
        from scipy import sparse  # here, as it is slow to import
    except ImportError as error:
        raise MissingExtraError(
            f"engine='sparse' needs scipy, which cannot be imported ({error}): expected `import scipy.sparse` to work; "
            "pip install scipy"
        ) from error
    return sparse


@functools.cache
def _kernel() -> Callable[..., None] | None:
    """Return the kernel of SciPy's product, ``None`` where this SciPy has no such function.

    It is not public, but what surrounds it takes as long as a product of 10,000 weights, and several times as long
    where other work has run in between. It is tried on a product whose result is known.
    """
    csr = _scipy().csr_array(np.array([[0, 2], [3, 4]], np.float32))
    product = np.zeros((1, 2), np.float32)
    try:
        from scipy.sparse._sparsetools import csr_matvec

        csr_matvec(2, 2, csr.indptr, csr.indices, csr.data, np.array([[5, 6]], np.float32), product)
    except (ImportError, TypeError, ValueError):
        return None
    return csr_matvec if product.tolist() == [[2 * 6, 3 * 5 + 4 * 6]] else None


__all__ = ["SparseWeight"]
