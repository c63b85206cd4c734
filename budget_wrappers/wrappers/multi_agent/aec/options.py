"""Wrapper of AEC environments whose actions are sub-policies: ``SubPolicyAction``."""

from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import BaseWrapper

from budget_wrappers.wrappers.multi_agent.accounts import MeterSource
from budget_wrappers.wrappers.multi_agent.aec.reading import has_ended
from budget_wrappers.wrappers.multi_agent.choices import SubPolicySet, TeamChoices
from budget_wrappers.wrappers.multi_agent.layers import require_kind


class SubPolicyAction(BaseWrapper):
    """Makes sub-policies the actions of each agent: ``Discrete(K)``, cheapest first, chosen anew at every turn.

    Sub-policies run on the agent's own observation, with its meter paused, and are charged here, by name, the FLOPs
    they declare. Whoever chooses charges the agent's meter by itself; a hard ``ComputeLimit`` has to know beforehand
    how much: ``selector_flops``. ``infos[agent]["option"]`` is the sub-policy that ran last, −1 where a limit made the
    agent repeat its last action. Where observations hold an ``action_mask``, sub-policies see it as it is and the
    selector one of its K choices. Wrappers that read costs go outside.

    A version for parallel environments exists: ``multi_agent.parallel.SubPolicyAction``.

    Example:
        >>> import pettingzoo
        >>> from budget_wrappers.policies import FunctionPolicy
        >>> first = FunctionPolicy(lambda observation: int(observation["action_mask"].argmax()), flops=10, name="first")
        >>> env = SubPolicyAction(pettingzoo.make("aec", "classic/tictactoe-v3"), [first], meter="docs.turns_options")
        >>> env.reset(seed=0)
        >>> env.action_space("player_1"), env.observe("player_1")["action_mask"]
        (Discrete(1), array([1], dtype=int8))
        >>> env.step(0)
        >>> float(env.infos["player_1"]["option"])
        0.0

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: AECEnv,
        sub_policies: SubPolicySet | Mapping[Any, SubPolicySet],
        meter: MeterSource = "policy",
        selector_flops: int | Mapping[Any, int] = 0,
    ) -> None:
        """Wrap ``env``; raises ConfigError, CostError and WrapperOrderError.

        Args:
            env: the environment that the sub-policies act in.
            sub_policies: one set for all agents, or a mapping from agent to its set.
            meter: prefix of the agents' meters, or a mapping from agent to meter.
            selector_flops: FLOPs that one choice of the outside selector costs at most, for all or by agent.
        """
        require_kind(env, AECEnv, self)
        super().__init__(env)
        self.choices = TeamChoices(env, self, sub_policies, meter, selector_flops)
        self._spaces: dict[Any, spaces.Space] = {}

    def observation_space(self, agent: Any) -> spaces.Space:
        """Return the space that the selector observes in, the same object at each call."""
        if agent not in self._spaces:
            self._spaces[agent] = self.choices.outside_space(agent, self.env.observation_space(agent))
        return self._spaces[agent]

    def action_space(self, agent: Any) -> spaces.Space:
        """Return ``Discrete(K)``, the same object at each call."""
        return self.choices.spaces[agent]

    def observe(self, agent: Any) -> Any:
        """Return what the selector of ``agent`` observes."""
        return self.choices.outside(agent, self.env.observe(agent), self.env.observation_space(agent))

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Reset the environment; no limit and no held action survives."""
        self.env.reset(seed=seed, options=options)
        self.choices.start()
        self._write()

    def step(self, action: Any) -> None:
        """Run the chosen sub-policy of the agent whose turn it is, and step; ``None`` for one that has ended.

        Raises:
            SpaceError: the action is no index of a sub-policy, or a sub-policy returns no action.
            NonFiniteError: a sub-policy returns NaN.
        """
        agent, ran = self.env.agent_selection, {}
        if not has_ended(self.env, agent):
            ran = self.choices.resolve({agent: action})
            action = self.choices.act(ran, self.env.observe, self.env.action_space)[agent]
        self.env.step(action)
        self.choices.count(ran)
        self._write()

    def option_report(self, agent: Any, total: int) -> tuple[dict[str, int], dict[str, int]]:
        """Return FLOPs and steps of this episode of ``agent``, by name."""
        return self.choices.report(agent, total)

    def _write(self) -> None:
        self.infos = {agent: self.choices.write(agent, info) for agent, info in self.env.infos.items()}


__all__ = ["SubPolicyAction"]
