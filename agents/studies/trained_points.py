"""Points of a trained run: the agent as it is, at each budget that it reads, and what chooses in its place."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

from agents.loop.evaluate import REPORT_SEED, evaluate_policy, undisturbed
from agents.loop.versions import machine
from agents.methods.budget_input import budget_wrapper
from agents.report.tradeoff import TradeoffPoint
from agents.runs.run import Run
from agents.studies.choosers import Chooser, FirstEpisode
from agents.studies.measuring import microseconds, point_of


def measured_run(run: Run, entrant: Any) -> list[TradeoffPoint]:
    """Return the points of a run at its end: its own, and those of the controls that choose in its place.

    Args:
        run: trained to its end.
        entrant: a ``TrainedEntrant``.
    """
    agent = run.agent
    trained = agent.meter.totals
    extras = {
        **entrant.facts,
        "baseline": entrant.baseline,
        "settings": settings_of(run),
        "train_act_flops": trained["act"],
        "train_learn_flops": trained["learn"],
        "duration_s": seconds_of(run),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    found: list[TradeoffPoint] = []
    for budget in entrant.budgets or (None,):
        # Each begins with the generators as training left them, so that `budget eval` of the run measures the same.
        with undisturbed(agent, run.evaluation_env):
            found += _at_budget(run, entrant, budget, extras)
    return found


def _at_budget(run: Run, entrant: Any, budget: float | None, extras: dict[str, Any]) -> list[TradeoffPoint]:
    """Return the points of one budget, ``None`` for the only one."""
    agent, env, label = run.agent, run.evaluation_env, entrant.label
    if budget is not None:
        budget_wrapper(env).set_budget(budget)
        label, extras = f"{label}, b = {budget:g}", {**extras, "budget": budget}
    chooser = Chooser.of(agent)
    noting = FirstEpisode(env)
    result = evaluate_policy(chooser or agent, noting, entrant.episodes, REPORT_SEED)
    curve, over_training = run.curve(result.summary()["raw_return"])
    own = extras | over_training | (chooser.facts(noting.rewards) if chooser else {})
    own["us_per_action"] = microseconds(agent, run.config, REPORT_SEED, budget)
    point = point_of(entrant.method, label, agent.config.seed, result, curve, own)
    points = [point]
    for control in entrant.choosers if chooser else ():
        replaced = run.config.make_env()
        if budget is not None:
            budget_wrapper(replaced).set_budget(budget)
        points.append(chooser.replaced(control, replaced, point, entrant.episodes))
    return points


def settings_of(run: Run) -> dict[str, Any]:
    """Return everything that the numbers of a run follow from, as reports compare it."""
    settings = {
        key: value for key, value in run.agent.config.to_dict().items() if key not in ("seed", "budget", "weight")
    }
    return {"run": dataclasses.asdict(run.config), "settings": settings, **run.agent.methods_given}


def seconds_of(run: Run) -> float:
    """Return how long training took, by the clock of its metrics, evaluations included.

    A row of training has the seconds since the row before, evaluations among them; steps after the last row are taken
    to have been as fast.
    """
    told: list[tuple[int, float]] = _seconds(run, "training")
    evaluations = _seconds(run, "evaluation")
    last = max((step for step, _ in told), default=0)
    evaluated = sum(seconds for step, seconds in evaluations if step < last)
    training = sum(seconds for _, seconds in told) - evaluated
    pace = run.agent.num_timesteps / last if last else 1.0
    return float(max(training, 0.0) * pace + sum(seconds for _, seconds in evaluations))


def _seconds(run: Run, kind: str) -> list[tuple[int, float]]:
    """Return step and seconds of the rows of one kind."""
    return [(int(row["step"]), float(row["clock"].get("seconds", 0.0))) for row in run.folder.rows(kind)]


__all__ = ["measured_run"]
