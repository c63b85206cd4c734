"""Beside each method stands a plain agent of its FLOPs, which several methods may share."""

import contextlib
import dataclasses
from pathlib import Path

import gymnasium as gym

from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.studies.fitted import fitted
from agents.studies.tradeoff import Study, TradeoffConfig, run_tradeoff

CONFIG = TradeoffConfig(
    env=("Pendulum-v1",),
    steps=60,
    budgets=(0.3,),
    batch_size=8,
    learning_starts=10,
    episodes=1,
    eval_every=30,
    eval_episodes=1,
    workers=1,
)
BEXA = "bexa-sac:8,8, b = 0.3"


def points(folder: Path, label: str) -> list[TradeoffPoint]:
    return [point for point in Comparison.read(folder).points if point.label == label]


def test_a_seed_that_moves_what_is_fitted_to_takes_other_widths_in_another_folder(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, methods=("bexa-sac:8,8", "fit"), seeds=(0,))
    run_tradeoff(config, tmp_path)
    (before,) = points(tmp_path, f"fit of {BEXA}")
    (field,) = dataclasses.replace(config, seeds=(0, 1)).fields(tmp_path)
    (own,) = points(tmp_path, BEXA)
    more = [own, dataclasses.replace(own, seed=1, flops_per_step=2 * own.flops_per_step)]  # as seed 1 might have cost
    with contextlib.closing(gym.make("Pendulum-v1")) as env:
        (fit,) = fitted(field, env, {BEXA: more})
        (again,) = fitted(field, env, {BEXA: [own]})
    assert [one.found() for one in fit.entrants] == [None, None]
    assert again.entrants[0].found() == [
        dataclasses.replace(before, extras={k: v for k, v in before.extras.items() if k != "run"})
    ]


def test_one_plain_agent_stands_beside_all_methods_whose_flops_it_has(tmp_path: Path) -> None:
    # Programs of one budget: the two methods cost about the same, and their actors narrowed to it are the same.
    methods = ("bexa-sac:8,8", "batch=bexa-sac:8,8@gate_training=batch_budget", "fit", "dense:8,8")
    config = dataclasses.replace(CONFIG, methods=methods, seeds=(0, 1), budgets=(0.5,))
    (field,) = config.fields(tmp_path)
    costs = {"bexa-sac:8,8, b = 0.5": (150.0, "bexa-sac:8,8"), "batch, b = 0.5": (151.0, "batch")}
    costs["batch, b = 1"] = (2 * (3 * 8 + 8 * 8 + 8 * 2) * 1.015, "batch")  # dense:8,8 has this within 2 %
    rows = {
        label: [TradeoffPoint(method, label, 0, -100.0, flops, extras={"budget": 0.5})]
        for label, (flops, method) in costs.items()
    }
    with contextlib.closing(gym.make("Pendulum-v1")) as env:
        fits = {fit.label.removeprefix("fit of "): fit for fit in fitted(field, env, rows)}
    own, shared, dense = (fits[label] for label in costs)
    assert [own.shared, shared.shared, dense.shared] == [False, True, True]
    assert shared.entrants == own.entrants
    assert [one.label for one in dense.entrants] == ["dense:8,8"] * 2
    trained = TradeoffPoint(
        "dense:8,8", "dense:8,8", 0, -90.0, 208.0, extras={"control": "dense", "train_act_flops": 5}
    )
    (point,) = dense.row([trained])
    assert (point.method, point.label, point.mean_return) == ("fit", "fit of batch, b = 1", -90.0)
    assert (point.extras["control"], point.extras["of"]) == ("fit", "batch, b = 1")
    assert (point.extras["budget"], point.extras["train_act_flops"]) == (0.5, 5)
    # They are rows of the study without further work.
    study = Study(field, {one: [trained] for one in dense.entrants}, shared=[dense])
    assert [one.label for one in study.named()] == ["dense:8,8"] * 2 + ["fit of batch, b = 1"] * 2
