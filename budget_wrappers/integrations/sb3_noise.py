"""Stable-Baselines3's state-dependent exploration (``use_sde=True``): the products of PPO's and A2C's distribution.

What the noise depends on is multiplied in the distribution, which is no module: its variance at each action, also a
deterministic one, and the noise where it is drawn. SAC's runs inside its actor.
"""

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

_PRODUCTS = ("proba_distribution", "get_noise")


class NoiseProducts(nn.Module):
    """Runs the methods of a distribution that multiply, so that a meter can watch them as a module.

    Args:
        distribution: of ``use_sde=True``; its methods go through here until ``remove``.
    """

    def __init__(self, distribution: Any) -> None:
        super().__init__()
        self._distribution = distribution
        for name in _PRODUCTS:
            method = getattr(distribution, name)
            setattr(distribution, name, lambda *args, method=method, **kwargs: self(method, *args, **kwargs))

    def forward(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run ``method``."""
        return method(*args, **kwargs)

    def remove(self) -> None:
        """Leave nothing on the distribution."""
        for name in _PRODUCTS:
            vars(self._distribution).pop(name, None)


def noise_products(policy: Any) -> dict[str, nn.Module]:
    """Return what ``policy`` multiplies in its distribution, as a module under its name; nothing where it does not."""
    known = importlib.import_module("stable_baselines3.common.distributions").StateDependentNoiseDistribution
    distribution = getattr(policy, "action_dist", None)
    return {"noise": NoiseProducts(distribution)} if isinstance(distribution, known) else {}


__all__ = ["NoiseProducts", "noise_products"]
