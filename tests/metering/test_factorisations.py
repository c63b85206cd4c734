"""Factorisations, solvers, eigenvalue problems and Fourier transforms: textbook numbers, loops, and what uses them."""

from collections.abc import Callable
from math import ceil, log2

import pytest
import torch
from torch import Tensor, distributions, linalg, nn

from budget_wrappers.metering import ComputeMeter, count_flops

MODES = pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
N, R = 5, 2  # n = 5: n³ = 125, n² = 25; 2 right-hand sides
M, K = 7, 4  # a rectangular matrix: l = 7, k = 4


def square(*batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A positive definite matrix that is not diagonal."""
    return (torch.eye(N, dtype=dtype) * 4 + torch.ones(N, N, dtype=dtype)).expand(*batch, N, N).clone()


def sides(*batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(*batch, N, R, dtype=dtype)


def tall(*batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.arange(1, M * K + 1).to(dtype).sin().view(M, K).expand(*batch, M, K).clone()


# Function, its arguments, FLOPs of one matrix. Fractions are rounded up: n³/3 = 41.67 is 42.
TEXTBOOK: dict[str, tuple[Callable[..., object], tuple[Callable[..., Tensor], ...], int]] = {
    "cholesky: n³/3": (linalg.cholesky, (square,), 42),
    "cholesky_solve: 2n²r": (torch.cholesky_solve, (sides, square), 100),
    "cholesky_inverse: 2n³/3": (torch.cholesky_inverse, (square,), 84),
    "solve_triangular: n²r": (lambda a, b: linalg.solve_triangular(a, b, upper=True), (square, sides), 50),
    "triangular_solve: n²r": (torch.triangular_solve, (sides, square), 50),
    "lu: k²(l − k/3) = 16·7 − 64/3": (linalg.lu, (tall,), 91),
    "lu_factor: 2n³/3": (linalg.lu_factor, (square,), 84),
    "lu_solve: 2n³/3 + 2n²r": (lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b), (square, sides), 184),
    "lu_unpack: 2n³/3, and moves": (lambda a: torch.lu_unpack(*linalg.lu_factor(a)), (square,), 84),
    "ldl: n³/3 + 2n²r": (lambda a, b: linalg.ldl_solve(*linalg.ldl_factor(a), b), (square, sides), 142),
    "solve: 2n³/3 + 2n²r": (linalg.solve, (square, sides), 184),
    "solve from the right": (lambda a, b: linalg.solve(a, b.mT, left=False), (square, sides), 184),
    "inv: 2n³": (linalg.inv, (square,), 250),
    "det: 2n³/3": (linalg.det, (square,), 84),
    "slogdet: 2n³/3": (linalg.slogdet, (square,), 84),
    "matrix_power(−3): 2n³ and two products of 2n³": (lambda a: linalg.matrix_power(a, -3), (square,), 750),
    "qr, R alone: 2k²(l − k/3) = 2·(112 − 64/3)": (lambda a: linalg.qr(a, "r"), (tall,), 182),
    "qr, reduced: and 2lk² − 2k³/3 for Q": (linalg.qr, (tall,), 182 + 182),
    # Q (m, m) from k reflectors: 4(m²k − mk² + k³/3) = 4·(196 − 112 + 64/3) = 421.3
    "qr, complete": (lambda a: linalg.qr(a, "complete"), (tall,), 182 + 422),
    "geqrf": (torch.geqrf, (tall,), 182),
    "householder_product": (lambda a: linalg.householder_product(*torch.geqrf(a)), (tall,), 182 + 182),
    # 4mnk − 2nk² = 4·7·4·4 − 2·4·16
    "ormqr": (lambda a: torch.ormqr(*torch.geqrf(a), a), (tall,), 182 + 448 - 128),
    # 4lk − k² a right-hand side: 4·7·4 − 16 = 96
    "lstsq: QR and 4lk − k² a side": (lambda a: linalg.lstsq(a, a[..., :3]), (tall,), 182 + 3 * 96),
    # min(4·7·16 + 8·64, 2·7·16 + 11·64) = 928; 2lk + 2k² = 88 a side
    "lstsq by singular values": (
        lambda a: linalg.lstsq(a, a[..., :3], driver="gelsd"),
        (tall,),
        928 + 3 * 88,
    ),
    # min(14lk² + 8k³, 6lk² + 20k³) = min(2080, 1952)
    "svd, k vectors a side": (lambda a: linalg.svd(a, full_matrices=False), (tall,), 1952),
    # 4l²k + min(8lk² + 9k³, 22k³) = 784 + min(1472, 1408)
    "svd, full": (linalg.svd, (tall,), 784 + 1408),
    "svd of the transpose": (lambda a: linalg.svd(a.mT, full_matrices=False), (tall,), 1952),
    "pinv: svd and 2mnk": (linalg.pinv, (tall,), 1952 + 2 * 7 * 4 * 4),
    "eigh: 9n³": (linalg.eigh, (square,), 9 * 125),
    "eig: 79n³/3": (linalg.eig, (square,), 3292),
    "matrix_exp: five products": (torch.matrix_exp, (square,), 5 * 2 * 125),
}
CASES = pytest.mark.parametrize("case", TEXTBOOK.values(), ids=TEXTBOOK)

pytestmark = pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated", "ignore:Singular sample")


@CASES
def test_an_operator_costs_the_leading_term_of_its_textbook_algorithm_in_both_conventions(case: tuple) -> None:
    function, shapes, flops = case
    inputs = [shape() for shape in shapes]
    assert count_flops(function, *inputs) == flops
    assert count_flops(function, *inputs, convention="all") >= flops


@CASES
def test_a_batch_costs_as_many_times_as_it_has_matrices(case: tuple) -> None:
    function, shapes, flops = case
    with torch.inference_mode():
        assert count_flops(function, *[shape(2, 3) for shape in shapes]) == 6 * flops
        assert count_flops(function, *[shape(0) for shape in shapes]) == 0


@CASES
def test_complex_numbers_cost_four_times_as_much(case: tuple) -> None:
    function, shapes, flops = case
    with torch.no_grad():
        assert count_flops(function, *[shape(dtype=torch.complex64) for shape in shapes]) == 4 * flops


@MODES
def test_a_result_that_is_written_elsewhere_costs_the_same(mode: type) -> None:
    with mode():
        result, tau, a = torch.empty(M, K), torch.empty(K), tall()
        assert count_flops(lambda: torch.geqrf(a, out=(result, tau))) == 182
        s, factor, info = square(), torch.empty(N, N), torch.empty((), dtype=torch.int32)
        assert count_flops(lambda: linalg.cholesky_ex(s, out=(factor, info))) == 42


@pytest.mark.parametrize("vectors", [(N,), (3, N)], ids=["one", "a batch of matrices"])
def test_a_vector_is_one_right_hand_side(vectors: tuple[int, ...]) -> None:
    batch = vectors[:-1]
    # 2n³/3 + 2n² = 84 + 50 a matrix
    assert count_flops(linalg.solve, square(*batch), torch.ones(vectors)) == (3 if batch else 1) * 134


def test_one_matrix_for_many_right_hand_sides_is_factorised_once() -> None:
    assert count_flops(linalg.solve, square(), sides(6)) == 84 + 6 * 2 * 25 * R


# ---- oracles: loops that count -------------------------------------------------------------------------------------


def cholesky_by_loops(n: int) -> int:
    """Additions, multiplications, divisions and roots of the column by column algorithm."""
    flops = 0
    for j in range(n):
        flops += 2 * j + 1  # the diagonal: j squares, j subtractions, a root
        for _ in range(j + 1, n):
            flops += 2 * j + 1  # j products, j subtractions, a division
    return flops


def lu_by_loops(n: int) -> int:
    flops = 0
    for k in range(n):
        for _ in range(k + 1, n):
            flops += 1 + 2 * (n - k - 1)  # a multiplier, then a row: product and subtraction
    return flops


def substitution_by_loops(n: int) -> int:
    return sum(2 * i + 1 for i in range(n))


def householder_by_loops(n: int) -> int:
    """Each reflector meets the columns that are left: a dot product, a scaling, an update; and its own norm."""
    flops = 0
    for j in range(n):
        rows = n - j
        flops += 3 * rows + 3
        for _ in range(j, n):
            flops += 4 * rows + 1
    return flops


@pytest.mark.parametrize(
    ("function", "loops", "right"),
    [
        (linalg.cholesky, cholesky_by_loops, False),
        (linalg.det, lu_by_loops, False),
        (lambda a, b: linalg.solve_triangular(a, b, upper=True), substitution_by_loops, True),
        (lambda a: linalg.qr(a, "r"), householder_by_loops, False),
    ],
    ids=["cholesky", "lu", "substitution", "householder"],
)
def test_loops_that_count_approach_the_leading_term(function: Callable, loops: Callable, right: bool) -> None:
    def ratio(n: int) -> float:
        a = torch.eye(n)
        return loops(n) / count_flops(function, *([a, torch.ones(n, 1)] if right else [a]))

    assert abs(ratio(200) - 1) < 0.03
    assert abs(ratio(200) - 1) <= abs(ratio(20) - 1)


def test_the_butterflies_of_a_radix_2_transform_are_counted() -> None:
    def butterflies(n: int) -> int:
        # n/2 butterflies a level: a complex product (6), a sum and a difference (2 each)
        return 0 if n == 1 else 2 * butterflies(n // 2) + (n // 2) * 10

    for n in (2, 8, 64):
        assert count_flops(torch.fft.fft, torch.zeros(n, dtype=torch.complex64)) == butterflies(n)


# ---- Fourier transforms ---------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(
    ("function", "shape", "dtype", "flops"),
    [
        (torch.fft.fft, (3, 8), torch.complex64, 3 * 5 * 8 * 3),
        (torch.fft.ifft, (3, 8), torch.complex64, 3 * 5 * 8 * 3),
        (torch.fft.rfft, (3, 8), torch.float32, 3 * 5 * 8 * 3 // 2),  # half: one side is real
        (torch.fft.irfft, (3, 5), torch.complex64, 3 * 5 * 8 * 3 // 2),  # of 8 points
        (torch.fft.fft, (6,), torch.complex64, ceil(5 * 6 * log2(6))),
        (torch.fft.fft2, (2, 4, 8), torch.complex64, 2 * 5 * 32 * 5),  # 32 points at once
        (torch.fft.fft, (3, 1), torch.complex64, 0),
        (torch.fft.fftfreq, (), torch.float32, None),
    ],
)
def test_a_transform_costs_five_n_log_n(
    mode: type, function: Callable, shape: tuple, dtype: object, flops: int
) -> None:
    with mode():
        if flops is None:
            assert count_flops(lambda: function(8)) == 0
        else:
            assert count_flops(function, torch.ones(shape, dtype=dtype)) == flops


def test_a_short_time_transform_costs_one_real_transform_a_frame_and_its_inverse_as_much() -> None:
    x, window = torch.ones(2, 100), torch.ones(16)
    spectrum = torch.stft(x, 16, window=window, return_complex=True)
    frame = 5 * 16 * 4 // 2  # hops of 4: 26 frames
    assert count_flops(lambda x: torch.stft(x, 16, window=window, return_complex=True), x) == 2 * 26 * frame
    assert count_flops(lambda s: torch.istft(s, 16, window=window), spectrum) == 2 * 26 * frame


def test_the_gradient_of_a_transform_is_a_transform() -> None:
    x = torch.ones(3, 8, dtype=torch.complex64, requires_grad=True)
    assert count_flops(lambda x: torch.fft.fft(x).abs().sum().backward(), x) == 2 * 3 * 5 * 8 * 3


# ---- complex products -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "shapes"),
    [(torch.mm, [(2, 3), (3, 4)]), (torch.bmm, [(2, 2, 3), (2, 3, 4)]), (torch.mv, [(2, 3), (3,)])],
)
def test_a_complex_multiply_accumulate_is_four_real_ones(function: Callable, shapes: list[tuple]) -> None:
    real, complex_ = ([torch.ones(s, dtype=dtype) for s in shapes] for dtype in (torch.float32, torch.complex64))
    assert count_flops(function, *complex_) == 4 * count_flops(function, *real) > 0


# ---- gradients ------------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_solution_is_a_solve_with_the_same_factors_and_a_product() -> None:
    a, b = square().requires_grad_(), sides().requires_grad_()
    # two substitutions for the right-hand sides, 2n²r, and the outer product for the matrix, 2n²r
    assert count_flops(lambda a, b: linalg.solve(a, b).sum().backward(), a, b) == 184 + 100 + 100


@pytest.mark.parametrize(
    "name", ["cholesky", "inv", "det", "slogdet", "eigh", "qr", "svd", "pinv", "matrix_exp", "eig"]
)
def test_a_gradient_costs_more_than_its_forward(name: str) -> None:
    def loss(a: Tensor) -> Tensor:
        parts = getattr(linalg, name)(a, **({"full_matrices": False} if name == "svd" else {}))
        parts = parts if isinstance(parts, tuple) else (parts,)
        return sum(part.abs().sum() for part in parts)

    a = (square() + torch.arange(float(N)).diag()).requires_grad_()
    forward, both = count_flops(loss, a), count_flops(lambda a: loss(a).backward(), a)
    assert both > forward > 0


def test_vmap_and_jacobians_count_every_matrix() -> None:
    assert count_flops(torch.func.vmap(linalg.cholesky), square(3)) == 3 * 42
    assert count_flops(torch.func.vmap(linalg.inv), square(3)) == 3 * 250
    jacobian = count_flops(torch.func.jacrev(linalg.inv), square())
    # the inverse, then for each of its 25 elements two products, −A⁻ᵀ G A⁻ᵀ
    assert jacobian == 250 + N * N * 2 * 250


# ---- what policies are made of --------------------------------------------------------------------------------------


class FullCovariance(nn.Module):
    """A Gaussian policy with a full covariance matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.factor = nn.Linear(4, N), nn.Linear(4, N * N)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        root = self.factor(x).unflatten(-1, (N, N))
        covariance = root @ root.mT + torch.eye(N)
        policy = distributions.MultivariateNormal(self.mean(x), covariance, validate_args=False)
        action = policy.rsample()
        return action, policy.log_prob(action)


# A row: the heads 2·4·(5 + 25), the covariance 2·125, its factor n³/3, the noise 2n², the density's substitution n².
ROW = 240 + 250 + 42 + 50 + 25


@MODES
@pytest.mark.parametrize("rows", [1, 3])
def test_a_gaussian_policy_with_full_covariance_costs_its_factor_and_two_triangles(mode: type, rows: int) -> None:
    with mode():
        assert count_flops(FullCovariance(), torch.ones(rows, 4)) == rows * ROW


def test_a_gaussian_policy_with_full_covariance_is_watched_and_learned_in_a_phase() -> None:
    policy, meter = FullCovariance(), ComputeMeter()
    meter.watch(policy)
    with torch.no_grad():
        policy(torch.ones(1, 4))
    assert meter.executed == ROW
    with meter.phase("learn"):
        policy(torch.ones(3, 4))[1].sum().backward()
    assert meter.learned > 3 * ROW


def _distributions() -> dict[str, Callable[[], object]]:
    normal = distributions.MultivariateNormal
    a, eye = square(), torch.eye(N)
    low = distributions.LowRankMultivariateNormal(torch.zeros(M), tall(), torch.ones(M))
    return {
        "covariance": lambda: normal(torch.zeros(N), a).rsample(),
        "precision": lambda: normal(torch.zeros(N), precision_matrix=a).entropy(),
        "divergence": lambda: distributions.kl_divergence(normal(torch.zeros(N), a), normal(torch.zeros(N), eye)),
        "low rank": lambda: low.log_prob(low.rsample()),
        "low rank made": lambda: distributions.LowRankMultivariateNormal(torch.zeros(M), tall(), torch.ones(M)),
        "wishart": lambda: (w := distributions.Wishart(torch.tensor(20.0).double(), a.double())).log_prob(w.rsample()),
        "orthogonal layer": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))(torch.ones(1, 4)),
    }


@pytest.mark.parametrize("name", _distributions())
def test_distributions_over_vectors_and_matrices_are_countable(name: str) -> None:
    counted = {
        convention: count_flops(_distributions()[name], convention=convention) for convention in ("matmul", "all")
    }
    assert counted["all"] > counted["matmul"] > 0


def test_a_correlation_factor_is_drawn_without_products() -> None:
    def draw() -> Tensor:
        policy = distributions.LKJCholesky(4, 1.0)
        return policy.log_prob(policy.sample())

    assert count_flops(draw) == 0 < count_flops(draw, convention="all")


def test_a_layer_that_iterates_a_riccati_equation_costs_its_products_and_solves() -> None:
    a, b, q, r = torch.eye(N), torch.ones(N, R), torch.eye(N), torch.eye(R)

    def gain(steps: int = 4) -> Tensor:
        p = q
        for _ in range(steps):
            k = torch.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
            p = q + a.T @ p @ (a - b @ k)
        return k

    # A step, n = 5, r = 2. bᵀp twice: 2·2·r·n² = 200; (bᵀp)b: 2r²n = 40; (bᵀp)a: 2rn² = 100; the solve of (r, r) with
    # n sides: ⌈2·8/3⌉ + 2·4·5 = 46; bk: 2n²r = 100; aᵀp and its product: 2·2·n³ = 500
    assert count_flops(gain) == 4 * (200 + 40 + 100 + 46 + 100 + 500)
