"""``budget eval``: what a trained policy earns and spends."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.cli.arguments import parse, say
from agents.cli.paths import require_folder
from agents.config import require
from agents.loop.agent import OffPolicyAgent
from agents.loop.evaluate import Evaluation, evaluate_policy, meters_of, undisturbed
from agents.loop.known_methods import title_of
from agents.methods.budget_input import budget_wrapper
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.log import provenance
from agents.studies.policies import PolicyOptions, open_policy, setup_of
from budget_wrappers.errors import ConfigError


@dataclass(frozen=True)
class EvalOptions(PolicyOptions):
    """Evaluate a trained policy: return, raw and with penalties, and FLOPs per step.

    Attributes:
        budget: mean costs of acting to evaluate at, of an agent that reads its budget from the observation; from two on
            its front is drawn, too.
        out: where that goes, by default the folder front in the run's folder.
        episodes: seeded episodes.
        stochastic: act with the policy's noise.
        json: print everything, episode by episode, as JSON.
    """

    budget: tuple[float, ...] = ()
    out: Path | None = None
    episodes: int = 20
    stochastic: bool = False
    json: bool = False


def run(arguments: Sequence[str]) -> int:
    """Evaluate as ``arguments`` say; return the exit code."""
    options = parse(EvalOptions, arguments, "budget eval", EvalOptions.__doc__ or "")
    require_folder(options.out, "out")
    policy, env, name = open_policy(options)
    try:
        if options.budget:
            require_reading(policy, env, options.budget)
        results = [_evaluated(policy, env, options, budget) for budget in options.budget or (None,)]
        convention = meters_of(policy, env)[0].convention
    finally:
        env.close()
    for budget, result in zip(options.budget or (None,), results, strict=True):
        spending = policy.spending(result.shares) if isinstance(policy, OffPolicyAgent) else {}
        if options.json:
            everything = {**result.summary(), **spending, **dataclasses.asdict(result)}
            everything |= {} if budget is None else {"budget": budget}
            sys.stdout.write(json.dumps(everything, default=float) + "\n")
        else:
            for line in evaluation_lines(result, name if budget is None else f"{name}, b = {budget:g}", spending):
                say(line)
    if len(results) > 1:
        return draw_front(policy, options, results, convention)
    return 0


def require_reading(policy: Any, env: Any, budgets: Sequence[float]) -> None:
    """Raise unless a policy reads its budget from the observations of ``env``, and ``budgets`` are shares, each once.

    Raises:
        ConfigError: with the remedy.
    """
    reads = getattr(getattr(policy, "config", None), "budget_from_observation", False)
    if not reads:
        methods = getattr(policy, "methods", ())
        reads = any(getattr(method.config, "budget_from_observation", False) for method in methods)
    if not reads or budget_wrapper(env) is None:
        raise ConfigError(
            f"budget={tuple(budgets)}: expected a policy that reads its budget from the observation; this one was "
            "taught one. Train such a policy with --budget-input --budget-from-observation, or compare several budgets "
            "with `budget tradeoff --budgets`"
        )
    shares = len(set(budgets)) == len(budgets) and all(0 <= budget <= 1 for budget in budgets)
    require(shares, "budget", tuple(budgets), "numbers from 0 to 1, each once")


def _evaluated(policy: Any, env: Any, options: EvalOptions, budget: float | None) -> Evaluation:
    deterministic = not options.stochastic
    if budget is None:
        return evaluate_policy(policy, env, options.episodes, options.seed, deterministic)
    budget_wrapper(env).set_budget(budget)
    with undisturbed(policy, env):  # each budget draws what it would draw if it were the only one
        return evaluate_policy(policy, env, options.episodes, options.seed, deterministic)


def draw_front(policy: Any, options: EvalOptions, results: Sequence[Evaluation], convention: Any) -> int:
    """Write the evaluations as a comparison, report it and return the exit code."""
    from agents.cli.report import report

    setup, name = setup_of(options)[1], title_of(policy)
    folder = options.out or (options.policy if options.policy.is_dir() else options.policy.parent) / "front"
    folder.mkdir(parents=True, exist_ok=True)
    points = [
        TradeoffPoint.from_episodes(
            name, f"{name}, b = {budget:g}", policy.config.seed, result.by_episode(), extras={"budget": budget}
        )
        for budget, result in zip(options.budget, results, strict=True)
    ]
    record = provenance(None)
    Comparison(setup.env, points, convention, record["command"], record["versions"]).write(folder)
    # With --json standard output holds nothing else.
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        return report([folder])


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
