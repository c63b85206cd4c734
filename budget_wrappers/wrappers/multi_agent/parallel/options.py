"""Wrapper of parallel environments whose actions are sub-policies: ``SubPolicyAction``."""

from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from budget_wrappers.errors import SpaceError
from budget_wrappers.wrappers.multi_agent.accounts import MeterSource
from budget_wrappers.wrappers.multi_agent.choices import SubPolicySet, TeamChoices
from budget_wrappers.wrappers.multi_agent.layers import require_kind
from budget_wrappers.wrappers.multi_agent.parallel.reading import Infos, Transition


class SubPolicyAction(BaseParallelWrapper):
    """Makes sub-policies the actions of each agent: ``Discrete(K)``, cheapest first, chosen anew at every step.

    Sub-policies run on the agent's own observation, with its meter paused, and are charged here, by name, the FLOPs
    they declare. Whoever chooses charges the agent's meter by itself; a hard ``ComputeLimit`` has to know beforehand
    how much: ``selector_flops``. ``infos[agent]["option"]`` is the sub-policy that ran, −1 where a limit made the agent
    repeat its last action. Where observations hold an ``action_mask``, sub-policies see it as it is and the selector
    one of its K choices. Wrappers that read costs go outside.

    A version for AEC environments exists: ``multi_agent.aec.SubPolicyAction``.

    Example:
        >>> import pettingzoo
        >>> from budget_wrappers.policies import FunctionPolicy
        >>> rock = FunctionPolicy(lambda observation: 0, flops=10, name="rock")
        >>> counter = FunctionPolicy(lambda observation: (int(observation) + 1) % 3, flops=40, name="counter")
        >>> env = pettingzoo.make("parallel", "classic/rps-v2")
        >>> env = SubPolicyAction(env, {"player_0": [rock, counter], "player_1": [rock]}, meter="docs.team_options")
        >>> env.action_space("player_0"), env.action_space("player_1")
        (Discrete(2), Discrete(1))
        >>> observations, infos = env.reset(seed=0)
        >>> float(env.step({"player_0": 1, "player_1": 0})[-1]["player_0"]["option"])
        1.0

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: ParallelEnv,
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
        require_kind(env, ParallelEnv, self)
        super().__init__(env)
        self.choices = TeamChoices(env, self, sub_policies, meter, selector_flops)
        self._spaces: dict[Any, spaces.Space] = {}
        self._observations: dict[Any, Any] = {}

    def observation_space(self, agent: Any) -> spaces.Space:
        """Return the space that the selector observes in, the same object at each call."""
        if agent not in self._spaces:
            self._spaces[agent] = self.choices.outside_space(agent, self.env.observation_space(agent))
        return self._spaces[agent]

    def action_space(self, agent: Any) -> spaces.Space:
        """Return ``Discrete(K)``, the same object at each call."""
        return self.choices.spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[Any, Any], Infos]:
        """Reset the environment; no limit and no held action survives."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self.choices.start()
        return self._outside(observations), self._written(infos)

    def step(self, actions: dict[Any, Any]) -> Transition:
        """Run the chosen sub-policy of every live agent and step.

        Raises:
            SpaceError: a live agent has no action, or one that is no index, or a sub-policy returns no action.
            NonFiniteError: a sub-policy returns NaN.
        """
        live = list(self.env.agents)
        missing = [agent for agent in live if agent not in actions]
        if missing:
            raise SpaceError(f"actions has nothing for {missing!r}; expected a choice of each live agent, {live!r}.")
        ran = self.choices.resolve({agent: actions[agent] for agent in live})
        primitive = self.choices.act(ran, self._observations.__getitem__, self.env.action_space)
        observations, rewards, terminations, truncations, infos = self.env.step(primitive)
        self.choices.count(ran)
        return self._outside(observations), rewards, terminations, truncations, self._written(infos)

    def option_report(self, agent: Any, total: int) -> tuple[dict[str, int], dict[str, int]]:
        """Return FLOPs and steps of this episode of ``agent``, by name."""
        return self.choices.report(agent, total)

    def _outside(self, observations: dict[Any, Any]) -> dict[Any, Any]:
        self._observations = observations
        return {
            agent: self.choices.outside(agent, observation, self.env.observation_space(agent))
            if agent in self.choices.spaces
            else observation
            for agent, observation in observations.items()
        }

    def _written(self, infos: Infos) -> Infos:
        return {a: self.choices.write(a, info) if a in self.choices.spaces else info for a, info in infos.items()}


__all__ = ["SubPolicyAction"]
