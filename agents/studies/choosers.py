"""Who chooses among the exits or sub-policies of an agent: what it chose, and others in its place.

A *coin* chooses with constant probabilities at the same mean cost, the method's gates or master included; *shuffled*
makes the method's own choices in another order; *cheapest* and *dearest* always make the same one. What cannot beat
them has not learnt to choose by the state.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from agents.loop.evaluate import REPORT_SEED, evaluate_policy
from agents.methods.asymmetric import Asymmetric
from agents.report.tradeoff import TradeoffPoint
from agents.studies.measuring import control_extras, label_of, point_of
from budget_wrappers.core import Choice, Selector
from budget_wrappers.selection import coin, fixed, mixture_of_cost, shuffled
from budget_wrappers.selection.gates import gate_information
from budget_wrappers.wrappers import EarlyExitAction, RecordComputeStatistics, SubPolicyAction

MOST_STATES = 5_000
"""That are kept to tell what choices say about them."""
WHAT = {
    "coin": "chooses like a coin, whatever the state, at the same mean cost",
    "shuffled": "makes the method's own choices in another order",
    "cheapest": "always the cheapest choice of the method",
    "dearest": "always the dearest choice of the method",
}
BELOW = "always the dearest choice, {below:.0%} cheaper than the method, whose choosing costs more than all choices"
"""What a coin is where no mixture costs as much as the method."""
NEAR = 0.001
"""Share that rounding to whole FLOPs may miss."""


class Chooser:
    """An agent that chooses, with its choices noted.

    Args:
        agent: with early exits, or asymmetric.

    Attributes:
        meter: the agent's.
        names: of what is chosen among, cheapest first, ``K`` of them.
        flops: of one step of each, what choosing costs not among it, ``(K,)``: as declared, for the dearest exit.
        counts: how often each choice was made.
        acted: steps that each choice acted in, ``(K,)``; the last choice of an episode may be cut short.
        spent: FLOPs of these steps, what choosing cost not among it, ``(K,)``.
        episode: indices of the choices of each step of the first episode.
    """

    def __init__(self, agent: Any) -> None:
        self.agent, self.meter = agent, agent.meter
        self.masters = isinstance(agent, Asymmetric)
        policies = agent.sub_policies if self.masters else agent.exit_policy().exits
        ordered = sorted(policies, key=lambda one: one.flops)
        self.names = tuple(one.name for one in ordered)
        self.flops = np.array([one.flops for one in ordered], dtype=np.int64)
        self.counts: Counter[Choice] = Counter()
        self.acted, self.spent = np.zeros((2, len(self.names)), dtype=np.int64)
        self.episode: list[int] = []
        self._states: list[np.ndarray] = []
        self._exits = None if self.masters else agent.exit_policy()
        self._episodes = 0

    @classmethod
    def of(cls, agent: Any) -> "Chooser | None":
        """Return the chooser that ``agent`` is, ``None`` for one that has nothing to choose."""
        exits = getattr(agent, "exits", None)
        return cls(agent) if isinstance(agent, Asymmetric) or getattr(exits, "acting", None) == "early_exit" else None

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        """Act as the agent does, and note what it chose."""
        action, after = self.agent.predict(observation, state, episode_start, deterministic)
        self._episodes += state is None
        if not self.masters:
            index, made = self._exit_taken(), True
        else:
            option, left = (int(part[0]) for part in after)
            index, made, duration = option, state is None or int(state[1][0]) == 0, left + 1
        if made:
            chosen = Choice(index, self._asking(index), 1 if not self.masters else duration)
            self.counts[chosen] += 1
        self.acted[index] += 1
        self.spent[index] += self._step(index)
        if self._exits is not None and len(self._states) < MOST_STATES:
            self._states.append(self._exits.row_of(observation))
        if self._episodes <= 1:
            self.episode.append(index)
        return action, after if self.masters else (0 if after is None else after)

    def _exit_taken(self) -> int:
        exits = self.agent.exits
        return self.names.index(exits.names[int(exits.taken[0])])

    def _asking(self, index: int) -> int:
        """Return what choosing ``index`` costs: the master, or the gates on the way to an exit."""
        if self.masters:
            return int(self.agent.master.flops_per_action)
        exits = self.agent.exits
        return int(exits.flops[exits.names.index(self.names[index])] - self.flops[index])

    def _step(self, index: int) -> int:
        """Return what the last step of choice ``index`` cost, which a sub-policy with exits says anew each time."""
        return int(self.agent.parts[self.names[index]].flops_spent() if self.masters else self.flops[index])

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of the steps that each choice acted in, ``(K,)``."""
        return self.acted / self.acted.sum()

    @property
    def mean_flops(self) -> NDArray[np.int64]:
        """What a step of each choice cost in the mean, ``(K,)``, in whole FLOPs; as declared where none acted."""
        return np.where(self.acted > 0, np.rint(self.spent / np.maximum(self.acted, 1)), self.flops).astype(np.int64)

    def information(self) -> float:
        """Return what a choice says about the state, in nats: ``H(mean α) − mean H(α(s))`` over the states visited.

        0 is a coin. A master chooses without chance, so that the second term is 0.
        """
        if self.masters:
            shares = self.shares[self.shares > 0]
            return float(-(shares * np.log(shares)).sum()) + 0.0  # not −0
        network = self._exits.network
        like = next(network.parameters())
        with torch.no_grad(), self.meter.paused():
            return float(gate_information(network(torch.as_tensor(np.concatenate(self._states)).to(like)).logits))

    def facts(self, rewards: Sequence[float]) -> dict[str, Any]:
        """Return extras of the agent's point: shares of the steps, what choices say, and the first episode.

        Args:
            rewards: of each step of the first episode.
        """
        choices = [self.names[index] for index in self.episode]
        found: dict[str, Any] = {
            "shares": dict(zip(self.names, self.shares.tolist(), strict=True)),
            "timeline": {"names": list(self.names), "choices": choices, "rewards": list(rewards)},
        }
        found["gate_information"] = self.information()
        return found | ({"share_large": found["shares"]["large"]} if self.masters else {})

    # ---- in its place -----------------------------------------------------------------------------------------------

    def selector(self, control: str, mean_flops: float, seed: int | Sequence[int]) -> Selector:
        """Return what chooses in the agent's place.

        Args:
            control: ``coin``, ``shuffled``, ``cheapest`` or ``dearest``.
            mean_flops: of a step of the agent, which a coin is to cost, too.
            seed: of the draws, which differ from row to row and from seed to seed.
        """
        rng, duration = np.random.default_rng(seed), self.durations[0]
        made: Mapping[str, Callable[[], Selector]] = {
            "coin": lambda: coin(self.mixture(mean_flops), rng, duration=duration),
            "shuffled": lambda: shuffled(list(self.counts.elements()), rng),
            "cheapest": lambda: fixed(0, duration),
            "dearest": lambda: fixed(len(self.names) - 1, duration),
        }
        return made[control]()

    def mixture(self, mean_flops: float) -> NDArray[np.float64]:
        """Return the probabilities of the coin that costs ``mean_flops`` a step, or the dearest where all cost less."""
        return mixture_of_cost(self.mean_flops, self.shares, mean_flops)

    @property
    def durations(self) -> tuple[int, ...]:
        """Steps that a choice may last."""
        return self.agent.options.durations if self.masters else (1,)

    def wrapped(self, env: gym.Env, selector: Selector) -> gym.Env:
        """Return ``env`` with ``selector`` choosing in it: each step takes ``None`` as its action."""
        if self.masters:
            chosen: gym.Env = SubPolicyAction(
                env, self.agent.sub_policies, self.durations, meter=self.meter, selector=selector
            )
        else:
            chosen = EarlyExitAction(env, self.agent.exit_policy(), meter=self.meter, selector=selector)
        return RecordComputeStatistics(chosen, meter=self.meter)

    def replaced(self, control: str, env: gym.Env, own: TradeoffPoint, episodes: int) -> TradeoffPoint:
        """Return the point of a control that chooses in the agent's place; ``env`` is closed.

        Args:
            control: see ``selector``.
            env: without wrappers that read a meter.
            own: point of the agent, whose choices have been noted.
            episodes: of the evaluation.
        """
        wrapped = self.wrapped(env, self.selector(control, own.flops_per_step, (own.seed, crc32(own.label.encode()))))
        try:
            result = evaluate_policy(Asking(self.meter), wrapped, episodes, REPORT_SEED)
        finally:
            wrapped.close()
        what = WHAT[control]
        if control == "coin":
            below = 1 - float(self.mixture(own.flops_per_step) @ self.mean_flops) / own.flops_per_step
            what = BELOW.format(below=below) if below > NEAR else what
        extras = control_extras(control, own) | {"what": f"{what}: {own.label}"}
        return point_of(control, label_of(control, own.label), own.seed, result, (), extras)


class FirstEpisode(gym.Wrapper):
    """Notes the rewards of an evaluation's first episode.

    Args:
        env: of the evaluation.

    Attributes:
        rewards: one a step.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.rewards: list[float] = []
        self._episodes = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._episodes += 1
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        result = self.env.step(action)
        if self._episodes == 1:
            self.rewards.append(float(result[1]))
        return result


class Asking:
    """The policy of an environment in which a selector chooses: it has nothing to say.

    Args:
        meter: that the environment charges.
    """

    def __init__(self, meter: Any) -> None:
        self.meter = meter

    def predict(self, observation: Any, deterministic: bool = True, **state: Any) -> tuple[None, None]:
        """Return no action."""
        return None, None
