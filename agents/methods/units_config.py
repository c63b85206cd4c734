"""Configuration of units that learn whether they are needed. Defaults are the published ones where there are any."""

from dataclasses import dataclass
from typing import Any, Literal

from agents.config import require
from agents.loop.method import MethodConfig
from budget_wrappers.modules.unit_pruning import UnitSchedule


@dataclass(frozen=True)
class UnitKeys:
    """The keys of units, in the method's own configuration and in those of its presets.

    Attributes:
        max_parameters: that what acts may have in the end, biases and both heads of a Gaussian actor included; of DQN
            the network of values. 0 for no limit.
        max_flops: of one action in the end, ``matmul`` convention, of early exits the dearest; 0 for no limit.
        max_latency_us: of one action in the end, by the fit in ``device_profile``; 0 for no limit.
        device_profile: file of ``budget profile --device-out``, made on the machine that is to act.
        max_critic_parameters: that the critics may have together in the end; 0 for no limit.
        unit_penalty: ν, what one parameter (FLOP) of what acts costs in the unit of its loss; with a limit, where ν
            begins.
        critic_unit_penalty: the same for the critics; 0 leaves them as they are, unless they have a limit.
        learn_from: share of the run before which all units are there.
        fix_from: share of the run from which units are there or gone, and the size is the one asked for.
        drop_below: θ below which a unit is removed while the others learn on.
        prune_every: updates between two removals.
        unit_optimizer: of θ: Adam, or plain projected gradient steps as published.
        unit_learning_rate: of θ; ``"auto"`` for 3e-4, or up to .05 in a short run, so that θ can travel from 1 to 0
            ten times. Learned θ stay what they were if the rate times the updates is below 3.
    """

    max_parameters: int = 0
    max_flops: int = 0
    max_latency_us: float = 0.0
    device_profile: str = ""
    max_critic_parameters: int = 0
    unit_penalty: float = 1e-7
    critic_unit_penalty: float = 0.0
    learn_from: float = 0.2
    fix_from: float = 0.8
    drop_below: float = 0.1
    prune_every: int = 1_000
    unit_optimizer: Literal["adam", "sgd"] = "adam"
    unit_learning_rate: float | Literal["auto"] = "auto"


def require_unit_keys(config: Any) -> None:
    """Raise for a value out of bounds.

    Raises:
        ConfigError: with the key.
    """
    limits = ("max_parameters", "max_flops", "max_latency_us")
    for key in (*limits, "max_critic_parameters"):
        require(getattr(config, key) >= 0, key, getattr(config, key), "a size, or 0 for no limit")
    given = [key for key in limits if getattr(config, key)]
    for key in given[1:]:
        first = f"{given[0]}={getattr(config, given[0])}"
        require(False, key, getattr(config, key), f"0 beside {first}: one limit of what acts")
    require(
        bool(config.max_latency_us) == bool(config.device_profile),
        "device_profile",
        config.device_profile,
        "the file of a device's profile with max_latency_us, and only then",
    )
    require(config.unit_penalty > 0, "unit_penalty", config.unit_penalty, "a price above 0")
    require(config.critic_unit_penalty >= 0, "critic_unit_penalty", config.critic_unit_penalty, "a price of 0 or more")
    rate = config.unit_learning_rate
    require(rate == "auto" or rate > 0, "unit_learning_rate", rate, "'auto' or a number above 0")
    schedule_of(config)  # raises


def schedule_of(config: Any) -> UnitSchedule:
    """Return when units learn and are removed.

    Raises:
        ConfigError: shares that do not ascend in [0, 1], or a threshold outside (0, ½].
    """
    require(
        0 <= config.learn_from < config.fix_from <= 1,
        "learn_from",
        config.learn_from,
        f"a share of the run in [0, 1], below fix_from={config.fix_from}",
    )
    require(0 < config.drop_below <= 0.5, "drop_below", config.drop_below, "a probability in (0, 0.5]")
    require(config.prune_every >= 1, "prune_every", config.prune_every, "1 update or more")
    return UnitSchedule(config.learn_from, config.fix_from, config.drop_below, config.prune_every)


@dataclass(frozen=True)
class UnitsConfig(UnitKeys, MethodConfig):
    """Configuration of ``Units``; see ``UnitKeys``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_unit_keys(self)


__all__ = ["UnitKeys", "UnitsConfig", "require_unit_keys", "schedule_of"]
