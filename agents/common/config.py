"""Configurations: frozen dataclasses that name the nearest key when one is misspelt."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from agents.common.mlp import Activation
from budget_wrappers.errors import ConfigError


def unknown_key(key: str, known: list[str], owner: str) -> ConfigError:
    """Return the error for ``key``, which ``owner`` does not have, with the nearest key that it has."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
    return ConfigError(f"{owner} has no key {key!r}; {hint}")


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise ``ConfigError`` unless ``holds``.

    Raises:
        ConfigError: with the parameter, the value received and what was expected.
    """
    if not holds:
        raise ConfigError(f"{name}={value!r}: expected {expected}; pass {name}=… within these bounds")


@dataclass(frozen=True)
class OffPolicyConfig:
    """What every off-policy agent is told. Names are Stable-Baselines3's.

    Attributes:
        learning_rate: Adam's step size.
        buffer_size: transitions the replay holds.
        learning_starts: environment steps with uniformly random actions before the first update.
        batch_size: transitions of one update.
        gamma: discount, in [0, 1].
        train_freq: environment steps between two rounds of updates.
        gradient_steps: updates of one round; -1 for as many as steps were taken.
        n_step: length of the return that targets use, 1 for plain temporal differences.
        hindsight: transitions with a goal that was reached later, for each one with its own (HER's k, usually 4);
            0 for none. The environment's observations are then dictionaries with goals.
        net_arch: widths of the hidden layers.
        activation: ``"relu"`` or ``"tanh"``.
        seed: of the weights, the noise, the replay and the environment's resets.
        device: where networks and replay live.
    """

    learning_rate: float = 3e-4
    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 256
    gamma: float = 0.99
    train_freq: int = 1
    gradient_steps: int = 1
    n_step: int = 1
    hindsight: int = 0
    net_arch: tuple[int, ...] = (256, 256)
    activation: Activation = "relu"
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "net_arch", tuple(self.net_arch))
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")
        require(self.buffer_size >= 1, "buffer_size", self.buffer_size, "at least 1 transition")
        require(self.learning_starts >= 0, "learning_starts", self.learning_starts, "0 or more steps")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1 transition")
        require(0 <= self.gamma <= 1, "gamma", self.gamma, "a discount in [0, 1]")
        require(self.train_freq >= 1, "train_freq", self.train_freq, "at least 1 step")
        require(self.gradient_steps >= -1, "gradient_steps", self.gradient_steps, "-1, or 0 or more updates")
        require(self.n_step >= 1, "n_step", self.n_step, "at least 1 step")
        require(self.hindsight >= 0, "hindsight", self.hindsight, "0 or more relabelled transitions for each real one")
        require(all(width >= 1 for width in self.net_arch), "net_arch", self.net_arch, "widths of at least 1")
        require(self.activation in ("relu", "tanh"), "activation", self.activation, "'relu' or 'tanh'")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Return the configuration of ``settings``.

        Raises:
            ConfigError: a key that does not exist (the message names the nearest), or a value out of bounds.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in settings:
            if key not in known:
                raise unknown_key(key, known, cls.__name__)
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; ``of`` takes it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
