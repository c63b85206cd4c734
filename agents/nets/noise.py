"""Noise that is correlated in time, for environments in which independent noise explores too little."""

import numpy as np


class OrnsteinUhlenbeck:
    """``x ← x − θ·x·dt + σ·√dt·N(0, 1)`` from ``x = 0``: pulls back to 0 and forgets slowly.

    Args:
        size: of ``x``.
        sigma: σ; 0 for no noise, which draws nothing.
        rng: where the normal numbers come from.
        theta: θ, how strongly it pulls back.
        dt: how much time one call is. With the default, that of the DDPG publication, noise lasts about 1/θ = 7
            steps; with the 1e-2 that some libraries have, 667, longer than what it is to explore.

    Attributes:
        value: ``x`` of each environment, shape ``(n, size)`` float32.
    """

    def __init__(self, size: int, sigma: float, rng: np.random.Generator, theta: float = 0.15, dt: float = 1.0) -> None:
        self.sigma, self.theta, self.dt, self.rng = sigma, theta, dt, rng
        self.value = np.zeros((1, size), dtype=np.float32)

    def reset(self, env: int | None = None) -> None:
        """Start again from 0, as an episode does: in one of the environments, or in all."""
        self.value[slice(None) if env is None else env] = 0.0

    def __call__(self, envs: int = 1) -> np.ndarray:
        """Return the next ``x`` of each of ``envs`` environments, shape ``(envs, size)`` float32."""
        if len(self.value) != envs:
            self.value = np.zeros((envs, self.value.shape[1]), dtype=np.float32)
        if self.sigma == 0:
            return self.value
        noise = self.rng.standard_normal(self.value.shape, dtype=np.float32)
        x = self.value - self.theta * self.dt * self.value + self.sigma * np.sqrt(self.dt) * noise
        self.value = x.astype(np.float32)
        return self.value
