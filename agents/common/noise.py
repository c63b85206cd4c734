"""Noise that is correlated in time, for environments in which independent noise explores too little."""

import numpy as np


class OrnsteinUhlenbeck:
    """``x ← x − θ·x·dt + σ·√dt·N(0, 1)`` from ``x = 0``: pulls back to 0 and forgets slowly.

    Args:
        size: of ``x``.
        sigma: σ; 0 for no noise, which draws nothing.
        rng: where the normal numbers come from.
        theta: θ, how strongly it pulls back.
        dt: how much time one call is.
    """

    def __init__(
        self, size: int, sigma: float, rng: np.random.Generator, theta: float = 0.15, dt: float = 1e-2
    ) -> None:
        self.sigma, self.theta, self.dt, self.rng = sigma, theta, dt, rng
        self.value = np.zeros(size, dtype=np.float32)

    def reset(self) -> None:
        """Start again from 0, as an episode does."""
        self.value = np.zeros_like(self.value)

    def __call__(self) -> np.ndarray:
        """Return the next ``x``, shape ``(size,)`` float32."""
        if self.sigma == 0:
            return self.value
        noise = self.rng.standard_normal(self.value.shape, dtype=np.float32)
        self.value = self.value - self.theta * self.dt * self.value + self.sigma * np.sqrt(self.dt) * noise
        self.value = self.value.astype(np.float32)
        return self.value
