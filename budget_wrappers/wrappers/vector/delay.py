"""Vector wrapper in which actions arrive as late as their compute takes: ``ComputeDelayAction``."""

from typing import Any

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import iterate

from budget_wrappers.errors import ConfigError, InfoKeyError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.arrivals import Arrivals, Delays
from budget_wrappers.wrappers.delay import (
    DELAY_KEY,
    Percentile,
    Profiles,
    as_plain,
    checked_period,
    initial_of,
    points_of,
    require_convention,
)
from budget_wrappers.wrappers.reading import plain
from budget_wrappers.wrappers.vector.acting import batched
from budget_wrappers.wrappers.vector.arrays import stepped
from budget_wrappers.wrappers.vector.ending import Transition
from budget_wrappers.wrappers.vector.modes import NEXT_STEP, SAME_STEP, find_in_vector
from budget_wrappers.wrappers.vector.reading import VectorCostReader

AT_RESET = {DELAY_KEY: 0.0}


class ComputeDelayAction(VectorCostReader, RecordConstructorArgs):
    """Lets each environment's action arrive as many control periods late as computing it takes on a profiled device.

    The vector version of ``budget_wrappers.wrappers.ComputeDelayAction``, in every autoreset mode: what each row cost
    decides when its action arrives, as if a controller of that device ran each environment alone. Meanwhile the last
    action that arrived there goes on, at first ``initial_action``; no action outlives its episode. ``infos["delay"]``
    is ``(n,)``, with its mask. Around ``SubPolicyAction`` this wrapper goes inside.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers.vector import ComputeDelayAction
        >>> meter = get_meter("docs.vector.delay")
        >>> device = [(1_000, 200.0), (100_000, 45_000.0)]  # FLOPs and microseconds of two policies on it
        >>> envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        >>> envs = ComputeDelayAction(envs, device, period=0.02, meter="docs.vector.delay")
        >>> obs, infos = envs.reset(seed=0)
        >>> meter.add(101_000, rows=2, by_row=[1_000, 100_000])
        >>> envs.step([1, 1])[4]["delay"], envs.applied  # 45 ms are two periods of 20 ms, and what follows
        (array([0., 2.]), array([1, 0]))

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: VectorEnv,
        profile: Profiles,
        period: float | None = None,
        percentile: Percentile = "p50",
        initial_action: Any = None,
        meter: str | ComputeMeter = "policy",
    ) -> None:
        """Wrap ``env``.

        Args:
            env: the vector environment; the other arguments are those of the wrapper for single environments.
            profile: of the device: what ``budget profile --out`` saved, or pairs of FLOPs and microseconds.
            period: of control, in seconds; by default the environments' own ``dt``.
            percentile: of the profiled latencies.
            initial_action: of one environment: what acts until the first action arrives.
            meter: name or object of the meter that the policy charges.

        Raises:
            ConfigError: no profile, a period or percentile that is none.
            SpaceError: ``initial_action`` is no action of the environments, or ``env`` is no vector one.
            CheckpointError: a file that is no profile.
            InfoKeyError: a wrapper inside delays actions already.
            WrapperOrderError: a wrapper inside chooses what acts.
        """
        points, period = points_of(profile, percentile), plain(period)
        RecordConstructorArgs.__init__(
            self,
            profile=[list(point) for point in points],
            period=period,
            percentile=percentile,
            initial_action=as_plain(initial_action),
            meter=meter,
            _disable_deepcopy=True,
        )
        VectorCostReader.__init__(self, env)
        if find_in_vector(env, "delay_of") is not None:
            raise InfoKeyError(f"{env} delays actions already; one ComputeDelayAction is enough.")
        if find_in_vector(env, "option_report") is not None:
            raise WrapperOrderError(
                f"{env} chooses inside its step what acts. Put ComputeDelayAction inside of it: "
                "SubPolicyAction(ComputeDelayAction(env, …), …)."
            )
        first = initial_of(env.single_action_space, initial_action)
        self.open_account(meter)
        require_convention(profile, self.meter)
        self.period = period_of(env) if period is None else checked_period(period)
        self._delays = Delays(points, self.period)
        self._rows = [Arrivals(self._delays, first) for _ in range(self._n)]

    @property
    def applied(self) -> Any:
        """The actions that act, as the environments take them."""
        return batched(self.env.single_action_space, [row.applied for row in self._rows])

    def delay_of(self, flops: int) -> int:
        """Return how many control periods late an action of ``flops`` FLOPs arrives."""
        return self._delays.of(flops)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of ``options["reset_mask"]``: no action is under way there."""
        obs, infos, mask = self.reset_rows(seed, options)
        self._restart(np.ones(self._n, bool) if mask is None else mask)
        return obs, self.tell_reset(infos, AT_RESET, mask)

    def step(self, actions: Any) -> Transition:
        """Step each environment with the newest action that has arrived.

        Raises:
            SpaceError: there is not an action for each environment.
            MeterError: what was charged cannot be told apart by environment.
        """
        given = list(iterate(self.action_space, actions))
        if len(given) != self._n:
            raise SpaceError(f"{len(given)} actions; expected {self._n}, one for each environment.")
        account = self._account
        costs = account.collect().tolist()  # before the inner step: what an action cost decides when it arrives
        for arrivals, action, flops in zip(self._rows, given, costs, strict=True):
            arrivals.step(action, flops)
        late = np.array([float(row.late) for row in self._rows])
        obs, rewards, terminations, truncations, infos = stepped(self.env, self.applied)
        if self._closes:
            account.close(np.logical_or(terminations, truncations))
        infos = self.tell(infos, {DELAY_KEY: late}, AT_RESET)
        # Where a step only resets, the action that came with it is forgotten here.
        self._restart({NEXT_STEP: account.fresh, SAME_STEP: account.ended}.get(self._mode))
        return obs, rewards, terminations, truncations, infos

    def _restart(self, mask: np.ndarray | None) -> None:
        for row in () if mask is None else np.flatnonzero(mask):
            self._rows[row].restart()


def period_of(env: VectorEnv) -> float:
    """Return the control period that the environments have.

    Raises:
        ConfigError: they have none, or not the same.
    """
    base = env.unwrapped
    periods = [base.dt] if hasattr(base, "dt") else []
    if not periods and hasattr(base, "call") and all(base.call("has_wrapper_attr", "dt")):
        periods = list(base.get_attr("dt"))
    if len(set(periods)) != 1:
        raise ConfigError(
            f"period=None and {env} has {f'the dts {periods}' if periods else 'no dt'}; expected one control period in "
            "seconds, such as 0.02. Pass period=."
        )
    return checked_period(periods[0])


__all__ = ["ComputeDelayAction"]
