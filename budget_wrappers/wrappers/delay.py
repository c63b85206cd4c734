"""Wrapper in which actions arrive as late as their compute takes: ``ComputeDelayAction``."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.arguments import a_number, an_instance
from budget_wrappers.errors import ConfigError, InfoKeyError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter, Profile
from budget_wrappers.wrappers.arrivals import Arrivals, Delays
from budget_wrappers.wrappers.reading import CostReader, find_chooser, plain

Percentile = Literal["p50", "p95", "p99"]
DELAY_KEY = "delay"
Profiles = Profile | str | Path | Sequence[Any]
"""A profile, the path of a saved one, or several of either; or pairs of FLOPs and microseconds."""


class ComputeDelayAction(CostReader, RecordConstructorArgs):
    """Lets each action arrive as many control periods late as computing it takes on a profiled device.

    A deterministic model of a real-time controller: the FLOPs that the policy charged for an action become a latency by
    the device's profile, and whole control periods of it pass before the action arrives; one that is ready within its
    period is on time. Meanwhile the last action that arrived goes on, at first ``initial_action``. An action that
    arrives after one computed from a later observation is dropped. So cheap exits earn more where the world moves
    on, without any penalty.

    Between profiles the latency of an amount of FLOPs is interpolated, and beyond the cheapest and the dearest it is
    theirs: at batch 1 most of a small network's time is not arithmetic. With a single profile every action takes as
    long as it says. An action that cost nothing (random warm-up) is on time.

    ``info["delay"]`` is the delay of this step's action, in periods. Under an agent that chooses among sub-policies
    this wrapper goes inside: ``SubPolicyAction(ComputeDelayAction(env, …), …)``. A vector version exists:
    ``budget_wrappers.wrappers.vector.ComputeDelayAction``.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers import ComputeDelayAction
        >>> meter = get_meter("docs.delay")
        >>> device = [(1_000, 200.0), (100_000, 45_000.0)]  # FLOPs and microseconds of two policies on it
        >>> env = ComputeDelayAction(gym.make("CartPole-v1"), device, period=0.02, meter="docs.delay")
        >>> obs, info = env.reset(seed=0)
        >>> meter.add(100_000)
        >>> env.step(1)[4]["delay"], env.applied  # 45 ms are two periods of 20 ms, and what follows
        (np.float64(2.0), np.int64(0))
        >>> [meter.add(100_000) or (env.step(1), env.applied)[1] for _ in range(2)]
        [np.int64(0), 1]

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: gym.Env,
        profile: Profiles,
        period: float | None = None,
        percentile: Percentile = "p50",
        initial_action: Any = None,
        meter: str | ComputeMeter = "policy",
    ) -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            profile: of the device: what ``budget profile --out`` saved, for one policy or several, or pairs of FLOPs
                and microseconds.
            period: of control, in seconds; by default the environment's own ``dt``.
            percentile: of the profiled latencies.
            initial_action: what acts until the first action arrives; by default zeros, or action 0.
            meter: name or object of the meter that the policy charges.

        Raises:
            ConfigError: no profile, a period or percentile that is none.
            SpaceError: ``initial_action`` is no action of the environment.
            CheckpointError: a file that is no profile.
            InfoKeyError: a wrapper inside delays actions already.
            WrapperOrderError: a wrapper inside chooses what acts, so that nothing is known yet when it is to be late.
        """
        points = points_of(profile, percentile)
        an_instance("env", env, gym.Env, "a Gymnasium environment")
        period, first = plain(period), initial_of(env.action_space, initial_action)
        RecordConstructorArgs.__init__(
            self,
            profile=[list(point) for point in points],
            period=period,
            percentile=percentile,
            initial_action=as_plain(initial_action),
            meter=meter,
            _disable_deepcopy=True,
        )
        CostReader.__init__(self, env)
        if env.has_wrapper_attr("delay_of"):
            raise InfoKeyError(f"{env} delays actions already; one ComputeDelayAction is enough.")
        if find_chooser(env) is not None:
            raise WrapperOrderError(
                f"{env} chooses inside its step what acts. Put ComputeDelayAction inside of it: "
                "SubPolicyAction(ComputeDelayAction(env, …), …)."
            )
        self.open_account(meter)
        require_convention(profile, self.meter)
        self.period = period_of(env) if period is None else checked_period(period)
        self._delays = Delays(points, self.period)
        self._arrivals = Arrivals(self._delays, first)

    @property
    def applied(self) -> Any:
        """The action that acts."""
        return self._arrivals.applied

    def delay_of(self, flops: int) -> int:
        """Return how many control periods late an action of ``flops`` FLOPs arrives."""
        return self._delays.of(flops)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; no action is under way, and the initial one acts."""
        obs, info = super().reset(seed=seed, options=options)
        self._arrivals.restart()
        return obs, {**self.amend(info, ended=False), DELAY_KEY: np.float64(0)}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step with the newest action that has arrived.

        Raises:
            MeterError: the meter was charged for a batch.
        """
        self._account.begin_step()
        arrivals = self._arrivals
        arrivals.step(
            action, self._pending(early=True)
        )  # before the inner step: what an action cost decides when it arrives
        obs, reward, terminated, truncated, info = self.env.step(copy.deepcopy(arrivals.applied))
        self._pending()  # what was spent inside delays nothing
        info = {**self.amend(info, ended=False), DELAY_KEY: np.float64(arrivals.late)}
        return obs, reward, terminated, truncated, info

    def _pending(self, early: bool = False) -> int:
        """Return what was spent since the last call; collecting early does not disturb who closes the account."""
        total = self._account.collect(early)
        if self._account.episode != self._episode:
            self.begin_episode()
        seen, self._seen = self._seen, total
        return total - seen


def points_of(profile: Profiles, percentile: Percentile) -> list[tuple[float, float]]:
    """Return FLOPs and microseconds of each profile, by FLOPs, each amount once.

    Raises:
        ConfigError: none, no numbers, an amount of FLOPs with two latencies, or a percentile that none has.
        CheckpointError: a file that is no profile.
    """
    if percentile not in get_args(Percentile):
        raise ConfigError(f"percentile={percentile!r}; expected one of {', '.join(get_args(Percentile))}.")
    listed = [profile] if isinstance(profile, Profile | str | Path) else list(profile)
    points = []
    for one in listed:
        known = Profile.load(one) if isinstance(one, str | Path) else one
        if isinstance(known, Profile):
            points.append((float(known.flops), float(getattr(known.latency, f"{percentile}_us"))))
            continue
        try:
            flops, microseconds = (float(number) for number in known)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"profile has {known!r}; expected a Profile, the path of one, or FLOPs and microseconds."
            ) from error
        points.append((flops, microseconds))
    if not points or not all(0 <= number < math.inf for point in points for number in point):
        raise ConfigError(f"profile={profile!r}; expected at least one, of finite numbers of 0 or more.")
    points = sorted(set(points))
    if len({flops for flops, _ in points}) < len(points):
        raise ConfigError(f"profile has two latencies for one amount of FLOPs in {points}; leave one of them out.")
    return points


def require_convention(profile: Profiles, meter: ComputeMeter) -> None:
    """Check that profiles count what ``meter`` counts, as the one's FLOPs are looked up among the other's.

    Raises:
        ConfigError: a profile is of another convention; of pairs of numbers it is unknown.
    """
    for one in [profile] if isinstance(profile, Profile | str | Path) else profile:
        known = Profile.load(one) if isinstance(one, str | Path) else one
        if isinstance(known, Profile) and known.convention != meter.convention:
            raise ConfigError(
                f"the profile of {known.policy!r} counts FLOPs of the convention {known.convention!r}, and meter "
                f"{meter.name!r} counts {meter.convention!r}; expected one. Profile with "
                f"convention={meter.convention!r}, or pass a meter of the convention {known.convention!r}."
            )


def initial_of(space: gym.Space, action: Any) -> Any:
    """Return the action to start from.

    Raises:
        SpaceError: it is none of ``space``.
    """
    try:
        given = zeros_in(space) if action is None else as_action(space, action)
        fits = bool(space.contains(given))
    except (TypeError, ValueError, KeyError) as error:
        raise SpaceError(f"initial_action={action!r} ({error!r}); expected an action in {space}.") from error
    if not fits:
        raise SpaceError(f"initial_action={action!r}; expected an action in {space}.")
    return given


def zeros_in(space: gym.Space) -> Any:
    """Return zeros of ``space``, or what is nearest to them in it.

    Raises:
        SpaceError: nobody knows what that is in a space of this kind.
    """
    if isinstance(space, gym.spaces.Dict):
        return {key: zeros_in(part) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(zeros_in(part) for part in space.spaces)
    if isinstance(space, gym.spaces.Box):
        return np.clip(np.zeros(space.shape, dtype=space.dtype), space.low, space.high)
    if isinstance(space, gym.spaces.Discrete):
        return space.start
    if isinstance(space, gym.spaces.MultiDiscrete):
        return np.array(space.start, dtype=space.dtype)
    if isinstance(space, gym.spaces.MultiBinary):
        return np.zeros(space.shape, dtype=space.dtype)
    raise SpaceError(f"initial_action=None in {space}; expected an action, as it has no zero. Pass one.")


def as_action(space: gym.Space, plain_action: Any) -> Any:
    """Return an action given as plain data, with lists for arrays, as ``space`` has it."""
    if isinstance(space, gym.spaces.Dict):
        return {key: as_action(part, plain_action[key]) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(as_action(part, one) for part, one in zip(space.spaces, plain_action, strict=True))
    return np.asarray(plain_action, dtype=space.dtype) if space.shape else plain_action


def as_plain(action: Any) -> Any:
    """Return an action as plain data, which a spec can be written with."""
    if isinstance(action, dict):
        return {key: as_plain(part) for key, part in action.items()}
    if isinstance(action, tuple):
        return [as_plain(part) for part in action]
    return action.tolist() if isinstance(action, np.ndarray | np.generic) else action


def period_of(env: gym.Env) -> float:
    """Return the control period that the environment has.

    Raises:
        ConfigError: it has none.
    """
    period = getattr(env.unwrapped, "dt", None)
    if period is None:
        raise ConfigError(f"period=None and {env} has no dt; expected the control period in seconds, such as 0.02.")
    return checked_period(period)


def checked_period(period: Any) -> float:
    """Return ``period`` as a float.

    Raises:
        ConfigError: it is no finite number above 0.
    """
    return a_number("period", period, "a finite number of seconds above 0", lambda number: number > 0)


__all__ = [
    "DELAY_KEY",
    "ComputeDelayAction",
    "Percentile",
    "Profiles",
    "as_plain",
    "checked_period",
    "initial_of",
    "points_of",
    "require_convention",
]
