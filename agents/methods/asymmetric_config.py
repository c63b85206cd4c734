"""Configuration of asymmetric sub-policies. Defaults are those of the ICRA 2021 publication."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agents.config import Activation, require
from agents.loop.method import Method, checked_methods
from agents.sac import SACConfig
from budget_wrappers.errors import ConfigError
from budget_wrappers.wrappers.options import durations_of

Size = Literal["small", "large"]
LARGE_ACTED = 1_000
"""Added to the exits of the large sub-policy where the shared replay notes who acted."""


@dataclass(frozen=True)
class AsymmetricConfig(SACConfig):
    """Configuration of both sub-policies (SAC's keys) and of the master. Defaults are the published ones.

    Attributes:
        net_arch: widths of the large sub-policy's hidden layers, and of its critics' without ``critic_net_arch``.
        small_net_arch: the same of the small one.
        critic_net_arch: widths of the hidden layers of both sub-policies' critics, so that these differ in what acts
            alone; empty for each sub-policy's own.
        hold: environment steps that a choice lasts, or the durations that the master picks from, too.
        weight: λ, the reward that one step of the small sub-policy costs; a step of the large one costs more in
            proportion to its FLOPs.
        bootstrap: discount of the value after an option of n steps: ``"gamma_n"`` for γⁿ, ``"gamma"`` for γ.
        shared_buffer: whether each sub-policy learns from the steps of both, or from its own alone.
        cut_at_time_limit: whether a time limit ends the bootstrap as a termination does.
        master_learning_rate: step size of the master.
        master_net_arch: widths of its hidden layers.
        master_activation: between them.
        master_buffer_size: options its replay holds.
        master_batch_size: options of one update.
        master_learning_starts: environment steps with random choices before its first update.
        master_target_update_interval: environment steps between two copies to its target network.
        master_exploration_fraction: share of the run over which ε falls.
        master_exploration_final_eps: ε at the end.
        master_max_grad_norm: bound of its gradient's Euclidean norm.
        master_reward_scale: factor of the rewards that it learns from; ``reward_scale`` is the sub-policies'.
        master_double: double Q-learning.
        master_dueling: separate streams for value and advantage; what they cost is charged.
        master_prioritized: prioritized replay.
        master_hindsight: its options with a goal that was reached later, for each one with its own; ``hindsight`` is
            the sub-policies'.
    """

    net_arch: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    small_net_arch: tuple[int, ...] = (8, 8)
    hold: int | tuple[int, ...] = 5
    weight: float = 1e-4
    bootstrap: Literal["gamma_n", "gamma"] = "gamma_n"
    shared_buffer: bool = True
    cut_at_time_limit: bool = False
    master_learning_rate: float = 1e-3
    master_net_arch: tuple[int, ...] = (32, 32)
    master_activation: Activation = "tanh"
    master_buffer_size: int = 50_000
    master_batch_size: int = 32
    master_learning_starts: int = 1_000
    master_target_update_interval: int = 500
    master_exploration_fraction: float = 0.1
    master_exploration_final_eps: float = 0.02
    master_max_grad_norm: float = 10.0
    master_reward_scale: float = 1.0
    master_double: bool = True
    master_dueling: bool = False
    master_prioritized: bool = False
    master_hindsight: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        durations_of(self.hold)  # raises
        apart = self.shared_buffer or self.n_step == 1
        require(apart, "shared_buffer", self.shared_buffer, "True with n_step > 1, which links steps that follow")
        require(self.weight >= 0, "weight", self.weight, "a price of 0 or more")
        require(self.bootstrap in ("gamma_n", "gamma"), "bootstrap", self.bootstrap, "'gamma_n' or 'gamma'")
        goals = self.master_hindsight
        require(goals >= 0, "master_hindsight", goals, "0 or more relabelled options for each real one")
        require(not (goals and self.master_prioritized), "master_hindsight", goals, "0 with master_prioritized=True")
        require(
            (small := self.small_net_arch) not in ((), self.net_arch), "small_net_arch", small, "layers, not net_arch's"
        )

    def sub_policy(self, size: Size) -> dict[str, Any]:
        """Return the settings of one sub-policy; ``SAC(env, **settings)`` is the baseline of that size."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(SACConfig)}
        return {**own, "net_arch": self.small_net_arch if size == "small" else self.net_arch}

    def master(self) -> dict[str, Any]:
        """Return the settings of the master, as DQN takes them; hindsight over options is not its own."""
        prefix = "master_"
        own = {name.removeprefix(prefix): value for name, value in vars(self).items() if name.startswith(prefix)}
        return {**own, "hindsight": 0, "train_freq": 1, "gamma": self.gamma, "device": self.device}


def sub_policy_methods(
    small: Sequence[Method], large: Sequence[Method], settings: Mapping[str, Any]
) -> dict[Size, tuple[Method, ...]]:
    """Return the methods of each sub-policy.

    Raises:
        ConfigError: see ``checked_methods``; ``settings`` has methods of the whole agent.
    """
    if settings.get("methods"):
        raise ConfigError(
            f"methods={settings['methods']!r} of Asymmetric: expected those of a sub-policy; pass small_methods=[…] or "
            "large_methods=[…]"
        )
    return {"small": checked_methods(small), "large": checked_methods(large)}
