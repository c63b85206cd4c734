import numpy as np
import pytest

from agents.nets.noise import OrnsteinUhlenbeck


def test_noise_follows_its_equation() -> None:
    noise = OrnsteinUhlenbeck(2, 0.5, np.random.default_rng(0), theta=0.2, dt=0.25)
    normal, expected = np.random.default_rng(0), np.zeros(2)
    for _ in range(3):
        # x − 0.2·0.25·x + 0.5·√0.25·N
        expected = expected - 0.05 * expected + 0.25 * normal.standard_normal(2, dtype=np.float32)
        np.testing.assert_allclose(noise()[0], expected, rtol=1e-6)


def test_reset_starts_from_zero_again() -> None:
    noise = OrnsteinUhlenbeck(1, 0.5, np.random.default_rng(0))
    noise()
    noise.reset()
    assert noise.value == pytest.approx(0.0)


def test_each_environment_has_its_own() -> None:
    noise = OrnsteinUhlenbeck(2, 0.5, np.random.default_rng(0))
    before = noise(3).copy()
    noise.reset(1)
    np.testing.assert_array_equal(noise.value[1], [0.0, 0.0])
    np.testing.assert_array_equal(noise.value[[0, 2]], before[[0, 2]])


def test_no_noise_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    assert OrnsteinUhlenbeck(1, 0.0, rng)() == 0.0
    assert rng.random() == np.random.default_rng(0).random()
