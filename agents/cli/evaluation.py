"""``budget eval``: what a trained policy earns and spends."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.cli.arguments import parse, say
from agents.loop.agent import OffPolicyAgent
from agents.loop.evaluate import Evaluation, evaluate_policy
from agents.studies.policies import PolicyOptions, open_policy


@dataclass(frozen=True)
class EvalOptions(PolicyOptions):
    """Evaluate a trained policy: return, raw and with penalties, and FLOPs per step.

    Attributes:
        episodes: seeded episodes.
        stochastic: act with the policy's noise.
        json: print everything, episode by episode, as JSON.
    """

    episodes: int = 20
    stochastic: bool = False
    json: bool = False


def run(arguments: Sequence[str]) -> int:
    """Evaluate as ``arguments`` say; return the exit code."""
    options = parse(EvalOptions, arguments, "budget eval", EvalOptions.__doc__ or "")
    policy, env, name = open_policy(options)
    try:
        result = evaluate_policy(policy, env, options.episodes, options.seed, deterministic=not options.stochastic)
    finally:
        env.close()
    spending = policy.spending(result.shares) if isinstance(policy, OffPolicyAgent) else {}
    if options.json:
        everything = {**result.summary(), **spending, **dataclasses.asdict(result)}
        sys.stdout.write(json.dumps(everything, default=float) + "\n")
    else:
        for line in evaluation_lines(result, name, spending):
            say(line)
    return 0


def evaluation_lines(result: Evaluation, name: str, spending: Mapping[str, float]) -> list[str]:
    """Return the lines that the terminal shows; ``spending`` is the agent's own account of it."""
    summary = result.summary()
    lines = [
        f"{name}: {len(result.returns)} episodes of {summary['length']:,.1f} steps",
        f"  return          {summary['raw_return']:>14,.2f} ± {summary['raw_return_std']:,.2f}",
        f"  FLOPs per step  {summary['flops_per_step']:>14,.0f}   (acting, matmul convention)",
    ]
    if result.raw_returns != result.returns:
        lines.insert(2, f"  penalised       {summary['return']:>14,.2f} ± {summary['return_std']:,.2f}")
    if len(result.shares) > 1:
        lines.append("  acted by        " + ", ".join(f"{who} {share:.1%}" for who, share in result.shares.items()))
    if "cost" in spending:
        budget = f"   (budget {spending['budget']:g})" if "budget" in spending else ""
        lines.append(f"  executed cost   {spending['cost']:>14.3f}{budget}")
    return lines
