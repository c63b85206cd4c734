"""Vector wrapper whose actions are the exits of one network: ``EarlyExitAction``."""

from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from budget_wrappers.core import Selector
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies.exits import ExitPolicy
from budget_wrappers.wrappers.reading import plain
from budget_wrappers.wrappers.vector.options import SubPolicyAction


class EarlyExitAction(SubPolicyAction):
    """Makes the exits of one network the actions of each environment: ``(n,)`` indices, cheapest first.

    The vector version of ``budget_wrappers.wrappers.EarlyExitAction`` with ``hold=1``, in every autoreset mode: the
    vector ``SubPolicyAction`` over the exits of an ``ExitPolicy``. Rows that leave at one exit are one batch.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.modules.exits import EarlyExitNetwork
        >>> from budget_wrappers.policies import ExitPolicy
        >>> from budget_wrappers.wrappers.vector import EarlyExitAction, RecordComputeStatistics
        >>> values = EarlyExitNetwork(inputs=4, outputs=2, hidden=[8])  # exits on the observation and after 8 units
        >>> policy = ExitPolicy(values, act=lambda output: output.argmax())
        >>> envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
        >>> envs = EarlyExitAction(envs, policy, meter="docs.vector.exits")
        >>> envs.action_space, envs.sub_policies  # 2 · 4 · 2, and 2 · (4 · 8 + 8 · 2) FLOPs
        (MultiDiscrete([2 2 2]), SubPolicies(exit 1: 16, exit 2: 96))
        >>> envs = RecordComputeStatistics(envs, meter="docs.vector.exits")
        >>> obs, infos = envs.reset(seed=0)
        >>> envs.step([0, 1, 0])[-1]["cost"]
        array([16., 96., 16.])

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: VectorEnv,
        policy: ExitPolicy | str,
        hold: int = 1,
        weight: float = 0.0,
        meter: str | ComputeMeter = "policy",
        selector: Selector | str | None = None,
    ) -> None:
        """Wrap ``env``; raises ConfigError, CostError, SpaceError and WrapperOrderError.

        Args:
            env: the vector environment that the network acts in.
            policy: an object, such as ``agent.exit_policy()``, or a name known to ``register_sub_policy`` or
                ``register_loader``.
            hold: 1, as a choice lasts one step.
            weight: reward per step and unit of cost relative to the cheapest exit, >= 0.
            meter: name or object of the meter that is charged.
            selector: what ``step(None)`` asks about each row, an object or a name as above; see ``core.Selector``.
        """
        hold, weight = plain(hold), plain(weight)
        self.policy, recorded = ExitPolicy.of(policy)
        RecordConstructorArgs.__init__(
            self,
            policy=recorded,
            hold=hold,
            weight=weight,
            meter=meter,
            selector=selector,
            _disable_deepcopy=True,
        )
        # It records, too, and does not overwrite what is recorded.
        SubPolicyAction.__init__(self, env, self.policy.exits, hold, weight, meter, selector)


__all__ = ["EarlyExitAction"]
