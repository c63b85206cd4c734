"""Configurations: frozen dataclasses that check every value's type and name the nearest key when one is misspelt."""

import dataclasses
import difflib
import functools
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch

from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.finite import LARGEST

Activation = Literal["relu", "tanh"]
"""Between the layers of every perceptron."""

LARGEST_SEED = 2**63 - 1
"""What both numpy's and torch's generators take."""


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


# ---- types ----------------------------------------------------------------------------------------------------------


class RefusedError(Exception):
    """A value that is not of the kind asked for; it stays within this module."""


@dataclass(frozen=True)
class Kind:
    """What values an annotation allows.

    Attributes:
        expected: for messages.
        take: returns the value as plain Python, or raises ``RefusedError``.
    """

    expected: str
    take: Callable[[Any], Any]


def take_number(value: Any) -> Any:
    """Return a finite number, a numpy one as Python's."""
    if type(value) is float and math.isfinite(value):  # most are, and configurations are made often
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise RefusedError
    value = value.item() if isinstance(value, np.generic) else value
    try:
        if not math.isfinite(value):
            raise RefusedError
    except OverflowError as error:
        raise RefusedError from error
    return value if isinstance(value, int) else float(value)


def take_whole(value: Any) -> int:
    """Return a whole number as Python's; a float is none, even where nothing follows its point."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise RefusedError
    return int(value)


def take_bool(value: Any) -> bool:
    """Return true or false, numpy's as Python's."""
    if not isinstance(value, (bool, np.bool_)):
        raise RefusedError
    return bool(value)


def take_text(value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise RefusedError
    return value


def take_sequence(take: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    """Return the entries of a list or tuple as ``take`` takes each."""
    if not isinstance(value, (list, tuple)):
        raise RefusedError
    return tuple(take(entry) for entry in value)


def take_wholes(value: Any) -> tuple[int, ...]:
    """Return the whole numbers of any sequence."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
        raise RefusedError
    if isinstance(value, np.ndarray) and value.ndim != 1:
        raise RefusedError
    return tuple(take_whole(entry) for entry in value)


KINDS: dict[Any, Kind] = {
    float: Kind("a finite number", take_number),
    int: Kind("a whole number", take_whole),
    bool: Kind("True or False", take_bool),
    str: Kind("a text", take_text),
    tuple[int, ...]: Kind("a sequence of whole numbers", take_wholes),
    tuple[str, ...]: Kind("a list of texts", functools.partial(take_sequence, take_text)),
    tuple[float, ...]: Kind("a list of finite numbers", functools.partial(take_sequence, take_number)),
}


def kind_of(annotation: Any) -> Kind:
    """Return the kind of an annotation; one that is not known here allows everything."""
    if annotation in KINDS:
        return KINDS[annotation]
    if get_origin(annotation) is Literal:
        return Kind(" or ".join(map(repr, get_args(annotation))), functools.partial(take_one_of, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        # Exact values first: "'auto' or a finite number".
        entries = sorted(get_args(annotation), key=lambda entry: get_origin(entry) is not Literal)
        kinds = [Kind("None", take_none) if entry is type(None) else kind_of(entry) for entry in entries]
        return Kind(" or ".join(kind.expected for kind in kinds), functools.partial(take_any_of, kinds))
    return Kind("anything", lambda value: value)


def take_none(value: Any) -> None:
    """Return ``None``."""
    if value is not None:
        raise RefusedError


def take_one_of(allowed: Sequence[Any], value: Any) -> Any:
    """Return a value that is one of those ``allowed``, its type included."""
    if not any(type(value) is type(entry) and value == entry for entry in allowed):
        raise RefusedError
    return value


def take_any_of(kinds: Sequence[Kind], value: Any) -> Any:
    """Return a value of the first of the ``kinds`` that takes it."""
    for kind in kinds:
        try:
            return kind.take(value)
        except RefusedError:
            continue
    raise RefusedError


@functools.cache
def kinds_of(cls: type) -> tuple[tuple[str, Kind], ...]:
    """Return the fields of a dataclass with what they allow."""
    hints = get_type_hints(cls)
    return tuple((field.name, kind_of(hints[field.name])) for field in dataclasses.fields(cls))


def check_types(config: Any) -> None:
    """Check every field of a frozen dataclass against its annotation, and put plain Python values in their places.

    Raises:
        ConfigError: a value of another kind, NaN and infinities included.
    """
    for name, kind in kinds_of(type(config)):
        value = getattr(config, name)
        try:
            taken = kind.take(value)
        except RefusedError as error:
            raise ConfigError(f"{name}={value!r}: expected {kind.expected}; {remedy(config, name, value)}") from error
        if taken is not value:
            object.__setattr__(config, name, taken)


def remedy(config: Any, name: str, value: Any) -> str:
    """Return what to pass as ``name`` instead of ``value``."""
    if isinstance(value, float) and value.is_integer():
        return f"pass {name}={int(value)}"
    default = getattr(type(config), name, None)
    return f"pass {name}=… of that kind" + ("" if default is None else f", such as the default {default!r}")


def device_at_hand(name: str) -> torch.device:
    """Return a device that this machine has.

    Raises:
        ConfigError: it cannot be used here.
    """
    device = torch.device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # the second without CUDA in torch
        raise ConfigError(
            f"device={name!r} cannot be used here ({error}): expected a device of this machine; pass device='auto' for "
            "the accelerator where there is one"
        ) from error
    return device


def device_called(name: str) -> str:
    """Return the device of a configuration: ``"auto"`` is the accelerator where there is one.

    Raises:
        ConfigError: a text that names no device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device={name!r}: expected 'auto', 'cpu', 'cuda' or another device that torch knows; "
            "pass device='auto' for the accelerator where there is one"
        ) from error
    if torch.device(name).type == "meta":
        raise ConfigError("device='meta' holds no numbers: expected a device that does; pass device='auto'")
    return name


# ---- the configuration of every agent and method --------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """Base of configurations: made from keys and values, and given back as plain data."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Return the configuration of ``settings``.

        Raises:
            ConfigError: a key that does not exist (the message names the nearest), or a value of another type or
                out of bounds.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in settings:
            if key not in known:
                raise unknown_key(key, known, cls.__name__)
        required = [field.name for field in dataclasses.fields(cls) if field.default is field.default_factory]
        if missing := [key for key in required if key not in settings]:
            raise ConfigError(f"{cls.__name__} lacks {', '.join(missing)}: expected a value for each; add it")
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; ``of`` takes it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


@dataclass(frozen=True)
class OffPolicyConfig(Settings):
    """What every off-policy agent is told. Names are Stable-Baselines3's.

    Attributes:
        learning_rate: Adam's step size.
        adam_eps: added to the root of Adam's second moment, of the networks' optimizers.
        buffer_size: transitions the replay holds.
        learning_starts: environment steps with uniformly random actions before the first update.
        batch_size: transitions of one update.
        gamma: discount, in [0, 1].
        train_freq: environment steps between two rounds of updates.
        gradient_steps: updates of one round; -1 for as many as steps were taken.
        reward_scale: factor of the rewards that are learnt from; those that are reported stay as they are. Values far
            from 1 take small step sizes long to reach, and what two actions differ by is lost in their error.
        n_step: length of the return that targets use, 1 for plain temporal differences.
        hindsight: transitions with a goal that was reached later, for each one with its own (HER's k, usually 4);
            0 for none. The environment's observations are then dictionaries with goals.
        net_arch: widths of the hidden layers.
        activation: ``"relu"`` or ``"tanh"``.
        seed: of the weights, the noise, the replay and the environment's resets, 0 or more.
        device: where networks and replay live; ``"auto"`` for ``"cuda"`` where there is one, else ``"cpu"``.
    """

    learning_rate: float = 3e-4
    adam_eps: float = 1e-8
    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 256
    gamma: float = 0.99
    train_freq: int = 1
    gradient_steps: int = 1
    reward_scale: float = 1.0
    n_step: int = 1
    hindsight: int = 0
    net_arch: tuple[int, ...] = (256, 256)
    activation: Activation = "relu"
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        # Those of the children too, which may rely on it in what they require.
        check_types(self)
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")
        require(self.adam_eps > 0, "adam_eps", self.adam_eps, "a number above 0")
        require(1 <= self.buffer_size <= 2**40, "buffer_size", self.buffer_size, "at least 1 transition, at most 2**40")
        require(0 <= self.learning_starts < 2**63, "learning_starts", self.learning_starts, "0 or more steps")
        require(1 <= self.batch_size < 2**31, "batch_size", self.batch_size, "at least 1 transition, below 2**31")
        require(0 <= self.gamma <= 1, "gamma", self.gamma, "a discount in [0, 1]")
        require(1 <= self.train_freq < 2**31, "train_freq", self.train_freq, "at least 1 step, below 2**31")
        require(-1 <= self.gradient_steps < 2**31, "gradient_steps", self.gradient_steps, "-1, or 0 or more updates")
        require(0 < self.reward_scale <= LARGEST, "reward_scale", self.reward_scale, "a factor above 0 in float32")
        require(self.n_step >= 1, "n_step", self.n_step, "at least 1 step")
        require(self.hindsight >= 0, "hindsight", self.hindsight, "0 or more relabelled transitions for each real one")
        require(all(width >= 1 for width in self.net_arch), "net_arch", self.net_arch, "widths of at least 1")
        require(0 <= self.seed <= LARGEST_SEED, "seed", self.seed, "0 or more, and below 2**63")
        object.__setattr__(self, "device", device_called(self.device))

    def updates_of_round(self, num_envs: int) -> int:
        """Return how many updates follow ``train_freq`` steps of each of ``num_envs`` environments."""
        return self.gradient_steps if self.gradient_steps >= 0 else self.train_freq * num_envs


@dataclass(frozen=True)
class ActorCriticConfig(OffPolicyConfig):
    """What agents with critics beside the network that acts are told as well.

    Attributes:
        critic_net_arch: widths of the critics' hidden layers; empty for those of ``net_arch``. With it ``net_arch`` is
            of the network that acts alone, so that only acting becomes cheaper or more expensive.
    """

    critic_net_arch: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = self.critic_net_arch
        require(all(width >= 1 for width in widths), "critic_net_arch", widths, "widths of at least 1, or none")

    @property
    def critic_widths(self) -> tuple[int, ...]:
        """Widths of the critics' hidden layers."""
        return self.critic_net_arch or self.net_arch
