"""FLOPs of torch's matrix factorisations, their solvers, eigenvalue problems and Fourier transforms.

Each formula is the leading term of the textbook algorithm, from the shapes of its arguments: the terms of lower order
are left out, so a formula is exact in the limit of large matrices. Results are rounded up: nothing here costs 0. Each
matrix of a batch counts. Complex arithmetic counts 4 times, as one complex product has 4 real ones. Iterations whose
number depends on the data (eigenvalues, singular values, squarings of an exponential) count as the source gives them,
whatever the data. Both conventions count these formulas alike.

Sources: [GVL] Golub & Van Loan, *Matrix Computations*, 4th edition, 2013. [LAWN41] Blackford & Dongarra, *LAPACK
Working Note 41*, "Operation Counts for the BLAS and LAPACK". [LUG] *LAPACK Users' Guide*, 3rd edition, "LAPACK
Benchmark". [FFTW] Frigo & Johnson, "The Design and Implementation of FFTW3", Proc. IEEE 93(2), 2005.

Under any dispatch mode, a counter included, torch computes vectors for ``linalg.svdvals``, ``eigvals`` and ``eigvalsh``
as well. A counter cannot see that these are dropped, so these three count as with vectors: an upper bound.

Shapes: a matrix is ``(…, m, n)`` with ``k = min(m, n)`` and ``l = max(m, n)``; ``(…, n, r)`` are r right-hand sides.
"""

from collections.abc import Callable, Sequence
from math import ceil, log2, prod
from typing import Any

import torch
from torch import Tensor

Formula = Callable[..., int]

aten = torch.ops.aten


def per_product(tensor: Tensor) -> int:
    """Return the real multiply-accumulates in one of the tensor's: 4 for complex numbers."""
    return 4 if tensor.is_complex() else 1


def _thirds(flops: int) -> int:
    return -(-flops // 3)


def _batch(matrix: Tensor, flops: int) -> int:
    """Return ``flops`` for each matrix of a batch ``(…, m, n)``."""
    return prod(matrix.shape[:-2]) * flops * per_product(matrix)


def _sides(matrix: Tensor) -> tuple[int, int]:
    """Return ``(l, k)``, the longer and the shorter side."""
    m, n = matrix.shape[-2:]
    return max(m, n), min(m, n)


# ---- LU, Cholesky, LDL ----------------------------------------------------------------------------------------------


def lu_flops(l: int, k: int) -> int:  # noqa: E741 - the letters of the formulas
    """Return the FLOPs of Gaussian elimination: ``k²·(l − k/3)``, square ``2n³/3`` [GVL 3.2, 3.4; LAWN41 GETRF]."""
    return _thirds(k * k * (3 * l - k))


def _lu(out: Any, a: Tensor, *_: Any, **__: Any) -> int:
    return _batch(a, lu_flops(*_sides(a)))


def _cholesky(out: Any, a: Tensor, *_: Any, **__: Any) -> int:
    """``n³/3`` [GVL 4.2; LAWN41 POTRF]; LDLᵀ with pivoting costs the same [GVL 4.4; LAWN41 SYTRF]."""
    return _batch(a, _thirds(a.shape[-1] ** 3))


def _cholesky_inverse(out: Tensor, factor: Tensor, *_: Any, **__: Any) -> int:
    """The inverse from its Cholesky factor: ``2n³/3`` [LAWN41 POTRI]."""
    return _batch(factor, _thirds(2 * factor.shape[-1] ** 3))


def _inverse(out: Any, a: Tensor, *_: Any, **__: Any) -> int:
    """``2n³``: LU, then the inverse from its factors, ``4n³/3`` [GVL 3.4; LAWN41 GETRF, GETRI]."""
    return _batch(a, 2 * a.shape[-1] ** 3)


def _triangular(solution: Tensor, n: int) -> int:
    """One substitution: ``n²`` a right-hand side [GVL 3.1; LAWN41 TRTRS], so ``n`` an element of the solution."""
    return n * solution.numel() * per_product(solution)


def _solve_triangular(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return _triangular(out, a.shape[-1])


def _triangular_solve(out: Sequence[Tensor], b: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    return _triangular(out[0], a.shape[-1])


def _two_substitutions(out: Tensor, factor: Tensor, *_: Any, **__: Any) -> int:
    """``2n²`` a right-hand side from the factors of LU or LDLᵀ [LAWN41 GETRS, SYTRS]."""
    return 2 * _triangular(out, factor.shape[-1])


def _cholesky_solve(out: Tensor, b: Tensor, factor: Tensor, *_: Any, **__: Any) -> int:
    """``2n²`` a right-hand side [LAWN41 POTRS]."""
    return 2 * _triangular(out, factor.shape[-1])


def _solve(out: Sequence[Tensor], a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """LU of every matrix, two substitutions a right-hand side: ``2n³/3 + 2n²·r`` [GVL 3.4]."""
    return _lu(out, a) + 2 * _triangular(out[0], a.shape[-1])


# ---- orthogonal factorisations --------------------------------------------------------------------------------------


def householder_flops(l: int, k: int) -> int:  # noqa: E741
    """Return the FLOPs of Householder QR without Q: ``2k²·(l − k/3)`` [GVL 5.2; LAWN41 GEQRF, GELQF]."""
    return _thirds(2 * k * k * (3 * l - k))


def reflectors_flops(m: int, n: int, k: int) -> int:
    """Return the FLOPs of the first n columns of a product of k reflectors of length m.

    ``4mnk − 2(m + n)k² + 4k³/3`` [GVL 5.1; LAWN41 ORGQR].
    """
    return _thirds(12 * m * n * k - 6 * (m + n) * k * k + 4 * k**3)


def _qr(out: Any, a: Tensor, mode: str = "reduced", *_: Any, **__: Any) -> int:
    m, (longer, k) = a.shape[-2], _sides(a)
    columns = {"reduced": k, "complete": m, "r": 0}[mode]
    return _batch(a, householder_flops(longer, k) + (reflectors_flops(m, columns, k) if columns else 0))


def _geqrf(out: Any, a: Tensor, *_: Any, **__: Any) -> int:
    return _batch(a, householder_flops(*_sides(a)))


def _householder_product(out: Tensor, a: Tensor, tau: Tensor, *_: Any, **__: Any) -> int:
    return _batch(a, reflectors_flops(a.shape[-2], a.shape[-1], tau.shape[-1]))


def _ormqr(out: Tensor, a: Tensor, tau: Tensor, c: Tensor, left: bool = True, *_: Any, **__: Any) -> int:
    """``4mnk − 2·n·k²`` for k reflectors of length m times ``c (…, m, n)``; from the right m for n [LAWN41 ORMQR]."""
    m, n, k = c.shape[-2], c.shape[-1], tau.shape[-1]
    return _batch(c, 4 * m * n * k - 2 * (n if left else m) * k * k)


def _least_squares(
    out: Sequence[Tensor], a: Tensor, b: Tensor, rcond: Any = None, *_: Any, driver: str | None = None, **__: Any
) -> int:
    """QR and ``4lk − k²`` a right-hand side for reflectors and substitution [GVL 5.3].

    The drivers ``gelsd`` and ``gelss`` take singular values instead: ``4lk² + 8k³`` or, for a long matrix, ``2lk² +
    11k³`` [GVL 5.5, 8.6], with ``2lk + 2k²`` a right-hand side for the products with U and V.
    """
    longer, k = _sides(a)
    sides = out[0].numel() // a.shape[-1] if a.shape[-1] else 0
    if driver in ("gelsd", "gelss"):
        factors = min(4 * longer * k * k + 8 * k**3, 2 * longer * k * k + 11 * k**3)
        return _batch(a, factors) + sides * (2 * longer * k + 2 * k * k) * per_product(a)
    return _batch(a, householder_flops(longer, k)) + sides * (4 * longer * k - k * k) * per_product(a)


# ---- eigenvalues and singular values --------------------------------------------------------------------------------


def svd_flops(l: int, k: int, vectors: bool = True, full: bool = False) -> int:  # noqa: E741
    """Return the FLOPs of a singular value decomposition: the cheaper of Golub-Reinsch and R-SVD [GVL figure 8.6.1].

    ==================== ========================= ====================
    what is asked for    Golub-Reinsch             R-SVD (QR first)
    values               ``4lk² − 4k³/3``          ``2lk² + 2k³``
    k vectors a side     ``14lk² + 8k³``           ``6lk² + 20k³``
    full matrices        ``4l²k + 8lk² + 9k³``     ``4l²k + 22k³``
    ==================== ========================= ====================
    """
    if not vectors:
        return min(_thirds(12 * l * k * k - 4 * k**3), 2 * l * k * k + 2 * k**3)
    if full and l > k:
        return 4 * l * l * k + min(8 * l * k * k + 9 * k**3, 22 * k**3)
    return min(14 * l * k * k + 8 * k**3, 6 * l * k * k + 20 * k**3)


def _svd(out: Any, a: Tensor, full_matrices: bool = False, compute_uv: bool = True, *_: Any, **__: Any) -> int:
    return _batch(a, svd_flops(*_sides(a), vectors=compute_uv, full=full_matrices))


def _eigh(out: Any, a: Tensor, uplo: str = "L", compute_v: bool = True, *_: Any, **__: Any) -> int:
    """Symmetric QR algorithm: ``4n³/3`` for eigenvalues, ``9n³`` with eigenvectors [GVL 8.3]."""
    cube = a.shape[-1] ** 3
    return _batch(a, 9 * cube if compute_v else _thirds(4 * cube))


def _eigenvalues(out: Any, a: Tensor, *_: Any, **__: Any) -> int:
    """Hessenberg form and QR iterations: ``10n³`` [GVL 7.5; LUG]."""
    return _batch(a, 10 * a.shape[-1] ** 3)


def _eig(out: Any, a: Tensor, *_: Any, **__: Any) -> int:
    """Schur form with vectors ``25n³`` [GVL 7.5], eigenvectors from it ``4n³/3``: the ``26.33n³`` of [LUG]."""
    return _batch(a, _thirds(79 * a.shape[-1] ** 3))


def _pseudoinverse(out: Tensor, a: Tensor, *_: Any, hermitian: bool = False, **__: Any) -> int:
    """The factors, then their product, ``2·m·n·k``."""
    (m, n), (longer, k) = a.shape[-2:], _sides(a)
    return _batch(a, (9 * k**3 if hermitian else svd_flops(longer, k)) + 2 * m * n * k)


def _matrix_exp(out: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    """The 5 products of a Taylor polynomial of degree 18: ``10n³``.

    Bader, Blanes & Casas, "Computing the matrix exponential with an optimized Taylor polynomial approximation",
    Mathematics 7(12), 2019: what torch runs for a matrix whose norm is about 1. It takes fewer products below, and a
    squaring (``2n³``) more for each doubling of the norm above.
    """
    return _batch(a, 10 * a.shape[-1] ** 3)


# ---- Fourier transforms ---------------------------------------------------------------------------------------------


def fourier_flops(n: int, real: bool = False) -> int:
    """Return the FLOPs of one transform of n points: ``5·n·log₂(n)``, half as many if one side is real [FFTW]."""
    return ceil((2.5 if real else 5.0) * n * log2(n)) if n > 1 else 0


def _transforms(whole: Tensor, dim: Sequence[int], real: bool) -> int:
    n = prod(whole.shape[d] for d in dim)
    return (whole.numel() // n) * fourier_flops(n, real) if n else 0


def _fft_c2c(out: Tensor, x: Tensor, dim: Sequence[int], *_: Any, **__: Any) -> int:
    return _transforms(x, dim, real=False)


def _fft_r2c(out: Tensor, x: Tensor, dim: Sequence[int], *_: Any, **__: Any) -> int:
    return _transforms(x, dim, real=True)


def _fft_c2r(out: Tensor, x: Tensor, dim: Sequence[int], *_: Any, **__: Any) -> int:
    return _transforms(out, dim, real=True)


_NAMED: tuple[tuple[Formula, str], ...] = (
    (_lu, "linalg_lu linalg_lu_factor_ex _linalg_det _linalg_slogdet"),
    (_cholesky, "cholesky linalg_cholesky_ex linalg_ldl_factor_ex"),
    (_cholesky_inverse, "cholesky_inverse"),
    (_inverse, "linalg_inv_ex"),
    (_solve_triangular, "linalg_solve_triangular"),
    (_triangular_solve, "triangular_solve"),
    (_two_substitutions, "linalg_lu_solve linalg_ldl_solve"),
    (_cholesky_solve, "cholesky_solve _cholesky_solve_helper"),
    (_solve, "_linalg_solve_ex"),
    (_qr, "linalg_qr"),
    (_geqrf, "geqrf"),
    (_householder_product, "linalg_householder_product"),
    (_ormqr, "ormqr"),
    (_least_squares, "linalg_lstsq"),
    (_svd, "_linalg_svd"),
    (_eigh, "_linalg_eigh"),
    (_eigenvalues, "_linalg_eigvals"),
    (_eig, "linalg_eig"),
    (_matrix_exp, "linalg_matrix_exp"),
    (_fft_c2c, "_fft_c2c"),
    (_fft_r2c, "_fft_r2c"),
    (_fft_c2r, "_fft_c2r"),
)

FACTORISATIONS: dict[Any, Formula] = {
    **{getattr(aten, name): formula for formula, names in _NAMED for name in names.split() if hasattr(aten, name)},
    # The other overloads are composite: torch hands them on to these.
    aten.linalg_pinv.atol_rtol_tensor: _pseudoinverse,
    aten.linalg_pinv.atol_rtol_tensor_out: _pseudoinverse,
    aten.linalg_eigvals.out: _eigenvalues,
}
"""Operator → ``(out, *args, **kwargs) -> FLOPs``, equal in both conventions."""
