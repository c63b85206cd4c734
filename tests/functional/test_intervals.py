from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from budget_wrappers.errors import ConfigError, NonFiniteError
from budget_wrappers.functional.intervals import (
    Statistic,
    bootstrap_interval,
    interquartile_mean,
    mean,
    t_interval,
    t_quantile,
)


def test_interquartile_mean_drops_a_quarter_at_either_end() -> None:
    # 8 scores: 2 dropped at either end; (3 + 4 + 5 + 6) / 4 = 4.5, whatever the outliers are.
    assert interquartile_mean([1000.0, 3.0, 5.0, 2.0, -1000.0, 4.0, 6.0, 7.0]) == 4.5


def test_interquartile_mean_of_three_scores_is_their_mean() -> None:
    # floor(3/4) = 0 dropped.
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0


@pytest.mark.parametrize("count", [1, 4, 5, 7, 10, 33])
def test_interquartile_mean_matches_oracle(count: int) -> None:
    scores = np.random.default_rng(count).normal(size=(3, count))
    np.testing.assert_allclose(interquartile_mean(scores), stats.trim_mean(scores, 0.25, axis=-1), rtol=1e-12)


def test_bootstrap_of_two_runs_matches_hand_computation() -> None:
    # Two runs, 0 and 1: the resampled mean is 0, 1/2, 1 with probability 1/4, 1/2, 1/4. At level .4 the tails hold 30 %
    # each, beyond the quarter at either end, so both ends are 1/2; at level .9 they hold 5 %, so the ends are 0 and 1.
    assert bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([0.0, 1.0], level=0.9) == (0.0, 1.0)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
@pytest.mark.parametrize("runs", [5, 20])
def test_bootstrap_matches_oracle(runs: int, statistic: Statistic) -> None:
    scores = np.random.default_rng(0).exponential(size=runs)
    oracle = stats.bootstrap((scores,), statistic, method="BCa", n_resamples=50_000, rng=1).confidence_interval
    # The standard error of a 2.5 % quantile of 50,000 draws is .012 standard errors of the mean, a few times that in
    # the long tail.
    error = np.std(scores, ddof=1) / np.sqrt(runs)
    assert bootstrap_interval(scores, statistic, resamples=50_000) == pytest.approx(tuple(oracle), abs=0.06 * error)


def test_bootstrap_of_two_tasks_matches_oracle() -> None:
    table = np.random.default_rng(1).exponential(size=(6, 2)) * [1.0, 5.0]

    def pooled(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
        return (one.sum(axis) + other.sum(axis)) / (one.shape[axis] + other.shape[axis])

    oracle = stats.bootstrap(tuple(table.T), pooled, method="BCa", n_resamples=50_000, rng=1).confidence_interval
    # As above: .06 of the standard error of the mean of both, 0.8.
    assert bootstrap_interval(table, resamples=50_000) == pytest.approx(tuple(oracle), abs=0.05)


def test_a_skewed_statistic_has_an_interval_that_leans_to_the_long_tail() -> None:
    # The mean of a resample is 2 · k, k of 5 draws being the 10: P(k ≤ 2) = .942 and P(k ≤ 3) = .993, so the 97.5 %
    # quantile is 6. Acceleration moves the upper end beyond .993, to 8, and leaves the lower one at 0.
    assert bootstrap_interval([0.0, 0.0, 0.0, 0.0, 10.0]) == (0.0, 8.0)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 101])
@pytest.mark.parametrize("probability", [0.6, 0.975, 0.9995])
def test_t_quantile_matches_oracle(probability: float, freedom: int) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9)


def test_t_interval_of_five_runs_matches_hand_computation() -> None:
    # Mean 3, s² = (4 + 1 + 0 + 1 + 4)/4 = 2.5; the 97.5 % quantile of 4 degrees of freedom is 2.7764 (any table), so
    # 2.7764 · √(2.5/5) = 1.9632.
    assert t_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((1.0368, 4.9632), abs=1e-4)


def test_t_interval_of_one_run_is_a_point_and_of_several_tasks_raises() -> None:
    assert t_interval([7.0]) == (7.0, 7.0)
    with pytest.raises(ConfigError, match="one task at a time"):
        t_interval([[1.0, 2.0]])


def covered(interval: Callable[[np.ndarray], tuple[float, float]], samples: np.ndarray, truth: float) -> float:
    ends = np.array([interval(sample) for sample in samples])
    return float(np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])))


def test_coverage_of_five_runs_is_what_the_documentation_says() -> None:
    # The standard error of a share near .9 over 1,000 samples is .01; 3 of them.
    random = np.random.default_rng(0)
    normal, skewed = random.normal(size=(1_000, 5)), random.exponential(size=(1_000, 5))
    assert covered(t_interval, normal, 0.0) == pytest.approx(0.95, abs=0.03)
    assert covered(t_interval, skewed, 1.0) == pytest.approx(0.88, abs=0.03)

    def bootstrap(sample: np.ndarray) -> tuple[float, float]:
        return bootstrap_interval(sample, resamples=500)

    assert covered(bootstrap, normal, 0.0) == pytest.approx(0.83, abs=0.04)
    assert covered(bootstrap, skewed, 1.0) == pytest.approx(0.80, abs=0.04)


def test_strata_keep_every_task_in_every_resample() -> None:
    # Two tasks that are constant over runs: stratified, each resample is the table itself, so the interval is a point.
    # Drawn without strata the mean would vary between 0 and 100.
    low, high = bootstrap_interval([[0.0, 100.0]] * 5, mean)
    assert (low, high) == (50.0, 50.0)


def test_one_run_gives_a_point() -> None:
    assert bootstrap_interval([7.0]) == (7.0, 7.0)


def test_interval_is_a_function_of_its_seed() -> None:
    scores = np.random.default_rng(0).normal(size=9)
    assert bootstrap_interval(scores, seed=3, resamples=500) == bootstrap_interval(scores, seed=3, resamples=500)
    assert bootstrap_interval(scores, seed=3, resamples=500) != bootstrap_interval(scores, seed=4, resamples=500)


@pytest.mark.parametrize("scores", [[], np.zeros((2, 2, 2))])
def test_scores_of_another_shape_raise(scores: object) -> None:
    with pytest.raises(ConfigError, match=r"scores has shape .*expected \(runs,\)"):
        bootstrap_interval(scores)


def test_nan_scores_raise_with_their_count() -> None:
    with pytest.raises(NonFiniteError, match="1 NaN or infinite of 2"):
        bootstrap_interval([1.0, float("nan")])


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_level_out_of_bounds_raises(level: float) -> None:
    with pytest.raises(ConfigError, match="level="):
        bootstrap_interval([1.0, 2.0], level=level)


def test_no_resamples_raise() -> None:
    with pytest.raises(ConfigError, match="resamples=0"):
        bootstrap_interval([1.0, 2.0], resamples=0)
