"""Wrapper whose actions are the exits of one network: ``EarlyExitAction``."""

from collections.abc import Sequence

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.core import Selector
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies.exits import ExitPolicy
from budget_wrappers.wrappers.options import SubPolicyAction, durations_of
from budget_wrappers.wrappers.reading import plain


class EarlyExitAction(SubPolicyAction):
    """Makes the exits of one network the actions: ``Discrete(K)``; any discrete agent becomes its gate.

    It is ``SubPolicyAction`` over the exits of an ``ExitPolicy``, one decision a step by default, and all that is said
    there of rewards, accounts, durations and limits holds. Under a hard ``ComputeLimit`` no exit runs that cannot be
    paid for. The network's own gates are not asked: an exit costs the trunk up to it and its head, by the name
    ``"exit 1"``, ``"exit 2"``, …; the agent that chooses charges the meter by itself. ``step(None)`` lets the
    ``selector`` choose.

    Actions are ordered by cost, cheapest first, which is by depth in all but the narrowest networks;
    ``sub_policies.names`` has the order. A vector version exists: ``budget_wrappers.wrappers.vector.EarlyExitAction``.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.modules.exits import EarlyExitNetwork
        >>> from budget_wrappers.policies import ExitPolicy
        >>> from budget_wrappers.wrappers import EarlyExitAction, RecordComputeStatistics
        >>> values = EarlyExitNetwork(inputs=4, outputs=2, hidden=[8])  # exits on the observation and after 8 units
        >>> policy = ExitPolicy(values, act=lambda output: output.argmax())
        >>> env = EarlyExitAction(gym.make("CartPole-v1", max_episode_steps=4), policy, meter="docs.exits")
        >>> env.action_space, env.sub_policies  # 2 · 4 · 2, and 2 · (4 · 8 + 8 · 2) FLOPs
        (Discrete(2), SubPolicies(exit 1: 16, exit 2: 96))
        >>> env = RecordComputeStatistics(env, meter="docs.exits")
        >>> obs, info = env.reset(seed=0)
        >>> [float(env.step(exit_index)[4]["cost"]) for exit_index in (0, 0, 1)]
        [16.0, 16.0, 96.0]
        >>> {name: float(share) for name, share in env.step(0)[4]["compute"]["share_steps"].items()}
        {'exit 1': 0.75, 'exit 2': 0.25, 'hold': 0.0}

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: gym.Env,
        policy: ExitPolicy | str,
        hold: int | Sequence[int] = 1,
        weight: float = 0.0,
        meter: str | ComputeMeter = "policy",
        selector_flops: int | None = None,
        selector: Selector | str | None = None,
    ) -> None:
        """Wrap ``env``; raises ConfigError, CostError and WrapperOrderError.

        Args:
            env: the environment that the network acts in.
            policy: an object, such as ``agent.exit_policy()``, or a name known to ``register_sub_policy`` or
                ``register_loader``, which serialises.
            hold: primitive steps that one choice lasts, or the durations that can be chosen.
            weight: reward per step and unit of cost relative to the cheapest exit, >= 0.
            meter: name or object of the meter that is charged.
            selector_flops: FLOPs that one choice costs at most; by default what ``selector`` declares, or 0.
            selector: what ``step(None)`` asks, an object or a name as above; see ``core.Selector``.
        """
        hold, weight, selector_flops = plain(hold), plain(weight), plain(selector_flops)
        self.policy, recorded = ExitPolicy.of(policy)
        RecordConstructorArgs.__init__(
            self,
            policy=recorded,
            hold=hold if isinstance(hold, int) else list(durations_of(hold)),
            weight=weight,
            meter=meter,
            selector_flops=selector_flops,
            selector=selector,
            _disable_deepcopy=True,
        )
        # It records, too, and does not overwrite what is recorded.
        SubPolicyAction.__init__(self, env, self.policy.exits, hold, weight, meter, selector_flops, selector)


__all__ = ["EarlyExitAction"]
