import numpy as np
import pytest
from scipy import stats

from budget_wrappers.errors import ConfigError, NonFiniteError
from budget_wrappers.functional.intervals import bootstrap_interval, interquartile_mean, mean


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


def test_bootstrap_matches_oracle() -> None:
    scores = np.random.default_rng(0).normal(loc=3.0, size=20)
    oracle = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    # The standard error of a 2.5 % quantile of 20,000 draws is about .02 standard errors of the mean (1/√20).
    assert bootstrap_interval(scores, resamples=20_000) == pytest.approx(tuple(oracle), abs=0.02)


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
