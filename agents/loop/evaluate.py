"""Evaluating a policy: returns as the environment pays them and without penalties, and the FLOPs they took."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from budget_wrappers.arguments import a_count, a_flag, an_instance, refuse

EVALUATION_SEED, REPORT_SEED = 10_000, 20_000
"""Seeds of the first episode of evaluations while training, which may pick a best agent, and of those afterwards."""


@dataclass
class Evaluation:
    """Episodes of one evaluation.

    Attributes:
        returns: undiscounted return of each episode, as the environment pays it: penalties included.
        raw_returns: the same without penalties; equal to ``returns`` where nothing is penalised.
        lengths: steps of each episode; of the primitive environment, where each step is an option.
        flops: FLOPs spent on acting in each episode, in the meter's convention.
        successes: ``info["is_success"]`` at the end of each episode, as environments with goals say it; else empty.
        compute: the wrappers' report (``info["compute"]``) of each episode, empty without them.
    """

    returns: list[float] = field(default_factory=list)
    raw_returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    flops: list[int] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)
    compute: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean return, penalties included."""
        return float(np.mean(self.returns))

    @property
    def flops_per_step(self) -> float:
        """FLOPs per environment step, over all episodes."""
        return sum(self.flops) / max(sum(self.lengths), 1)

    @property
    def shares(self) -> dict[str, float]:
        """Share of all steps that each sub-policy or exit acted in, from the wrappers' reports; empty without them."""
        names = list(dict.fromkeys(name for report in self.compute for name in report["share_steps"]))
        steps = np.array(self.lengths, dtype=np.float64)
        each = {name: [report["share_steps"].get(name, 0.0) for report in self.compute] for name in names}
        return {name: float(np.dot(steps, values) / steps.sum()) for name, values in each.items()}

    def by_episode(self) -> list[dict[str, float]]:
        """Return ``return``, ``flops`` and ``length`` of each episode; the return is the one without penalties."""
        rows = zip(self.raw_returns, self.flops, self.lengths, strict=True)
        return [{"return": value, "flops": flops, "length": length} for value, flops, length in rows]

    def summary(self) -> dict[str, float]:
        """Return mean and standard deviation of the returns, raw and penalised, length, FLOPs per step, successes.

        ``share/<name>`` is each sub-policy's or exit's share of the steps, where there are several.
        """
        success = {"success_rate": float(np.mean(self.successes))} if self.successes else {}
        shares = self.shares
        several = {f"share/{name}": value for name, value in shares.items()} if len(shares) > 1 else {}
        return {
            **success,
            "return": self.mean,
            "return_std": float(np.std(self.returns)),
            "raw_return": float(np.mean(self.raw_returns)),
            "raw_return_std": float(np.std(self.raw_returns)),
            "length": float(np.mean(self.lengths)),
            "flops_per_step": self.flops_per_step,
            "episodes": len(self.returns),
            **several,
        }


def evaluate_policy(
    policy: Any,
    env: gym.Env,
    episodes: int = 20,
    seed: int = EVALUATION_SEED,
    deterministic: bool = True,
    on_step: Callable[[int], Any] = lambda length: None,
) -> Evaluation:
    """Run ``episodes`` episodes of ``policy``; episode ``i`` is reset with ``seed + i``.

    FLOPs are what the policy's meter (``policy.meter``) and the wrappers' meter were charged meanwhile. Where ``env``
    has no wrappers that read the policy's, no step of another environment pays for them.

    Args:
        policy: anything with Stable-Baselines3's ``predict(observation, state, episode_start, deterministic)``, which
            returns an action and the state for the next call.
        env: a single environment.
        episodes: at least 1.
        seed: of the first episode.
        deterministic: whether the policy's noise is off.
        on_step: called after each step with the length of its episode so far; it may raise to end the evaluation.

    Raises:
        ConfigError: fewer than one episode.
    """
    a_count("episodes", episodes, 1)
    a_count("seed", seed)
    deterministic = a_flag("deterministic", deterministic)
    an_instance("env", env, gym.Env, "a single Gymnasium environment")
    if not callable(getattr(policy, "predict", None)):
        refuse("policy", policy, "an object with predict(observation, state, episode_start, deterministic)")
    meters, read = meters_of(policy, env), meters_of(None, env)
    result = Evaluation()
    with contextlib.ExitStack() as stack:
        for meter in meters:
            if meter not in read:
                stack.enter_context(meter.uncharging())
        _run_episodes(result, policy, env, range(seed, seed + episodes), deterministic, meters, on_step)
    return result


def _run_episodes(
    result: Evaluation,
    policy: Any,
    env: gym.Env,
    seeds: range,
    deterministic: bool,
    meters: list[Any],
    on_step: Callable[[int], Any],
) -> None:
    """Add an episode for each of ``seeds`` to ``result``."""
    for seed in seeds:
        before = sum(meter.totals["act"] for meter in meters)
        observation, _ = env.reset(seed=seed)
        total, length, over, info, state = 0.0, 0, False, {}, None
        while not over:
            action, state = policy.predict(observation, **handed_back(state), deterministic=deterministic)
            observation, reward, terminated, truncated, info = env.step(action)
            total += float(reward)
            length += 1
            over = terminated or truncated
            on_step(length)
        report = info.get("compute", {})
        result.returns.append(total)
        result.raw_returns.append(float(report.get("return_raw", total)))
        result.lengths.append(int(report.get("steps", length)))
        result.flops.append(sum(meter.totals["act"] for meter in meters) - before)
        if report:
            result.compute.append(dict(report))
        if "is_success" in info:
            result.successes.append(bool(info["is_success"]))


def handed_back(state: Any) -> dict[str, Any]:
    """Return the keyword that gives ``predict`` the state it returned; policies without one need not know it."""
    return {} if state is None else {"state": state}


def meters_of(policy: Any, env: gym.Env | None) -> list[Any]:
    """Return the meters that ``policy`` charges and the wrappers of ``env`` read, each once."""
    found = [policy.meter] if hasattr(policy, "meter") else []
    if isinstance(env, gym.Wrapper) and env.has_wrapper_attr("compute_accounts"):
        found += [account.meter for account in env.get_wrapper_attr("compute_accounts")]
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def undisturbed(agent: Any, env: gym.Env | None = None) -> Iterator[None]:
    """Put the agent's generators, meters and counts of who acted back at the end, whatever the block did with them."""
    counts = list(getattr(agent, "acting_counts", ()))
    before = [own.copy() for own in counts]
    rng, generator = copy.deepcopy(agent.rng.bit_generator.state), agent.generator.get_state()
    with contextlib.ExitStack() as stack:
        for meter in meters_of(agent, env):
            stack.enter_context(meter.aside())
        try:
            yield
        finally:
            agent.rng.bit_generator.state = rng
            agent.generator.set_state(generator)
            for own, earlier in zip(counts, before, strict=True):
                own[:] = earlier
