"""benchmarks/README.md says what is stored: its tables and these claims are made again from raw data and compared.

Tables that a script writes (``results/**/*.md``) are made again by that script and compared as well.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agents.report.tradeoff import Row, summarise
from benchmarks import fronts as fronts_of
from benchmarks import multiplier
from benchmarks.asymmetric import tables as asymmetric
from benchmarks.asymmetric.mediation import markdown as mediation_table
from benchmarks.bexa import comparisons
from benchmarks.bexa import tables as bexa
from benchmarks.bexa.study import TASKS as BEXA_TASKS
from benchmarks.bexa.study import stored as bexa_runs
from benchmarks.learning import compare_sb3
from tests.stored import RESULTS, percent, prose, said, stored

PAGE = "benchmarks/README.md"


def entropy(p: float) -> float:
    """Return the entropy of a coin, in nats."""
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def spread(values: list[float], digits: int = 0) -> str:
    """Return mean ± the sample's standard deviation, of one value itself."""
    deviation = f" ± {said(float(np.std(values, ddof=1)), digits).replace(',', '')}" if len(values) > 1 else ""
    return said(float(np.mean(values)), digits).replace(",", "") + deviation


# ---- tables that scripts write --------------------------------------------------------------------------------------


def asymmetric_tables() -> dict[str, str]:
    rows = {task: asymmetric.rows_of(task) for task in asymmetric.PUBLISHED}
    return {f"asymmetric/{task}.md": asymmetric.markdown(own) for task, own in rows.items() if own}


def mediation() -> dict[str, str]:
    return {
        "asymmetric/mediation.md": mediation_table([stored(f"asymmetric/mediation/seed{i}.json") for i in range(3)])
    }


def early_exits() -> dict[str, str]:
    made = {"bexa/comparisons.md": comparisons.compared()[0]}
    for task in BEXA_TASKS:
        runs = bexa_runs(task)
        if runs:
            rows = bexa.table_rows(runs)
            made[f"bexa/{task}.md"] = bexa.markdown(task, rows, bexa.lines_of(rows))
    return made


def beside_sb3() -> list[dict[str, Any]]:
    pairs = {task: [compare_sb3.runs_of(task, own) for own in compare_sb3.LIBRARIES] for task in compare_sb3.TASKS}
    return [compare_sb3.compare(task, *own) for task, own in pairs.items() if all(own)]


def fronts() -> dict[str, str]:
    return {f"tradeoff/{path.stem}.md": fronts_of.markdown(fronts_of.read(path)) for path in fronts_of.stored()}


MADE: dict[str, Callable[[], dict[str, str]]] = {
    "asymmetric": asymmetric_tables,
    "mediation": mediation,
    "fronts": fronts,
    "early exits": early_exits,
    "a weight that adapts": lambda: {f"multiplier/{name}": text for name, text in multiplier.tables().items()},
    "beside Stable-Baselines3": lambda: {"against_sb3/table.md": compare_sb3.markdown(beside_sb3())},
}


@pytest.mark.parametrize("study", MADE)
def test_a_table_is_what_its_script_makes_of_the_stored_runs(study: str) -> None:
    made = MADE[study]()
    assert made
    for path, text in made.items():
        assert (RESULTS / path).read_text() == text, path


# ---- tables and claims of the page ----------------------------------------------------------------------------------


def finals(path: str, seeds: range) -> list[dict[str, Any]]:
    return [stored(path.format(seed))["final"]["deterministic"] for seed in seeds]


def an_episode(final: dict[str, Any]) -> float:
    return math.fsum(episode["flops"] for episode in final["by_episode"]) / len(final["by_episode"])


def returns(found: list[dict[str, Any]]) -> list[float]:
    return [math.fsum(one["return"] for one in final["by_episode"]) / len(final["by_episode"]) for final in found]


def asymmetric_row(task: str, name: str, method: str, steps: int, seeds: int, large: int, digits: int) -> list[str]:
    """Return the cells of one row: small-only, large-only, score, share on large, saved a step."""
    own = finals(f"asymmetric/{task}/{method}-{steps}-seed{{}}.json", range(seeds))
    dense = finals(f"asymmetric/{task}/large-only-{steps}-seed{{}}.json", range(large))
    small = RESULTS / f"asymmetric/{task}/small-only-{steps}-seed0.json"
    alone = finals(f"asymmetric/{task}/small-only-{steps}-seed{{}}.json", range(1)) if small.exists() else []
    saved = np.mean([1 - final["flops_per_step"] / dense[0]["flops_per_step"] for final in own])
    share = np.mean([final["share_large"] for final in own])
    return [
        f"{name}, {steps:,}, {seeds}",
        f"{said(returns(alone)[0])} (1)" if alone else "not run",
        spread(returns(dense), digits),
        spread(returns(own), digits),
        f"{percent(float(share), 1)} %",
        f"{percent(float(saved), 1)} %",
    ]


def asymmetric_rows() -> list[str]:
    rows = [
        asymmetric_row("mountain-car", "MountainCarContinuous", "asymmetric", 100_000, 5, 5, 1),
        asymmetric_row("swimmer", "Swimmer", "asymmetric", 300_000, 1, 1, 1),
        asymmetric_row("walker-stand", "walker-stand", "asymmetric", 200_000, 1, 2, 0),
        asymmetric_row("walker-stand", "walker-stand, `…`", "explore-half", 200_000, 2, 2, 0),
    ]
    return [f"| {' | '.join(cells)} |" for cells in rows]


def mountain_car() -> list[str]:
    own = finals("asymmetric/mountain-car/asymmetric-100000-seed{}.json", range(5))
    large = finals("asymmetric/mountain-car/large-only-100000-seed{}.json", range(5))
    (small,) = finals("asymmetric/mountain-car/small-only-100000-seed{}.json", range(1))
    whole = np.mean([an_episode(final) for final in large])
    step = np.mean([1 - final["flops_per_step"] / large[0]["flops_per_step"] for final in own])
    episode = np.mean([1 - an_episode(final) / whole for final in own])
    assert returns([small])[0] > max(returns(large))
    saved = percent(1 - small["flops_per_step"] / large[0]["flops_per_step"], 1)
    return [
        f"the small policy alone, 2×8, returns {said(returns([small])[0])} (seed 0, the only one stored)",
        f"would return as much and save {saved} %",
        f"{percent(float(step), 1)} % a step are {percent(float(episode), 1)} % an episode",
    ]


def master_at_the_end() -> list[str]:
    texts = []
    for which in (lambda record: record["master_at_the_end"], lambda record: record["outcomes"]["master"]):
        records = [stored(f"asymmetric/mediation/seed{seed}.json") for seed in range(3)]
        pairs = [(which(record), record["outcomes"]["large"]) for record in records]
        kept = [percent(own / large, 1) for own, large in (returns(list(pair)) for pair in pairs)]
        spent = [percent(own["flops_per_step"] / large["flops_per_step"], 1) for own, large in pairs]
        texts.append((f"{kept[0]}, {kept[1]} and {kept[2]} %", f"{spent[0]}, {spent[1]} and {spent[2]} %"))
    (end, end_cost), (picked, picked_cost) = texts
    return [
        f"at the end of its training keeps {end} of the large policy's return on seeds 0, 1 and 2, at {end_cost} of "
        "its FLOPs",
        f"picked, on other episodes, keeps {picked} at {picked_cost}.",
    ]


def coins() -> list[dict[str, Any]]:
    """Return the stored runs of HalfCheetah of 256 and of 64 units whose gates each state's program teaches."""
    runs = [run for run in bexa_runs("cheetah") if run["method"].startswith("bexa-") and "gates" in run]
    runs = [run for run in runs if run["settings"]["gate_training"] == "budget" and run["units"] in (None, 64)]
    return [run for run in runs if run["budget"] is not None and run["settings"]["exit_training"] == "all_exits"]


def gates_that_are_coins() -> list[str]:
    losses, shares = [], []
    for run in coins():
        first, second, last = run["exit_flops"]
        cost = (second - first) / (last - first)
        paid = (run["budget"] - cost) / (1 - cost)
        loss = np.mean([row["gate/loss"] for row in run["gates"] if "gate/loss" in row][-20:])
        losses.append(abs(float(loss) / entropy(paid) - 1))
        final = run["final"]
        share = final["share/exit 3"] if "share/exit 3" in final else final["share_steps"]["exit 3"]
        shares.append(abs(share - paid))
    return [
        f"In each of the {len(losses)} stored runs of 256 and of 64 units",
        f"within {math.ceil(1000 * max(losses)) / 10} % of the entropy of a coin",
        f"that number within {math.ceil(1000 * max(shares)) / 1000}",
    ]


def learning() -> list[str]:
    def times(task: str, plain: str, steps: int, seed: int) -> str:
        pair = [stored(f"bexa/{task}/{name}-{steps}-seed{seed}.json") for name in (f"bexa-{plain}-b0.3", plain)]
        return said(pair[0]["learning_flops"] / pair[1]["learning_flops"], 2)

    sac = ", ".join(times("cheetah", "sac", 200_000, seed) for seed in (0, 1))
    (hopper,) = {times("hopper", "sac", 100_000, seed) for seed in (0, 1)}
    return [
        f"Learning takes more: {sac} (SAC) and {times('cheetah', 'td3', 200_000, 0)} (TD3) times the FLOPs of the "
        f"plain agent, and {hopper} on both seeds of Hopper."
    ]


def against_plain() -> list[str]:
    lines = []
    for task, env, steps, seeds in (("cheetah", "HalfCheetah-v5", 200_000, 2), ("hopper", "Hopper-v5", 100_000, 2)):
        for plain, count in (("sac", seeds), ("td3", 1 if task == "cheetah" else 0)):
            pairs = [
                [stored(f"bexa/{task}/{name}-{steps}-seed{seed}.json") for name in (f"bexa-{plain}-b0.3", plain)]
                for seed in range(count)
            ]
            for index, name in enumerate((f"BEXA-{plain.upper()}", f"plain {plain.upper()}") if pairs else ()):
                own = [pair[index] for pair in pairs]
                cells = [f"{env}, {steps:,} steps", name, str(count)]
                cells.append(spread([float(np.mean([row["return"] for row in run["curve"]])) for run in own]))
                cells.append(spread(returns([run["final"] for run in own])))
                speed = [pair[1]["acting_flops_a_step"] / pair[0]["acting_flops_a_step"] for pair in pairs]
                cells += ["–", "–"] if index else [spread(speed, 2), spread([run["final"]["cost"] for run in own], 3)]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def programs() -> list[str]:
    lines, named = [], {"": "each state, each gate", "batch": "batch, each gate"}
    named |= {"mixture": "each state, mixture", "batch-mixture": "batch, mixture"}
    for task, short in (("cheetah", "HalfCheetah"), ("hopper", "Hopper")):
        (row,) = [one for one in comparisons.programs(bexa_runs(task)) if one["units"] == 64]
        for key, name in named.items():
            own = row["cells"][key]
            flops, over = own["acting_flops"]["each"], own["beyond_budget"]["each"]
            sign = "+" if np.mean(over) >= 0 else ""
            cells = [short, name, spread(own["over_training"]["each"]), spread(own["final"]["each"])]
            cells += [f"{np.mean(flops):,.0f} ± {np.std(flops, ddof=1):,.0f}", sign + spread(over, 3)]
            lines.append(f"| {' | '.join(cells)} |")
        for change in row["changes"]:  # what a single change adds is above 0 on one seed and below 0 on another
            for what in ("over_training", "final"):
                assert min(change[what]["each"]) < 0 < max(change[what]["each"])
    return lines


def retrofit() -> list[str]:
    lines = []
    for name in ("sac", "ppo"):
        rows = stored(f"retrofit/{name}-seed0.json")["rows"]
        before = float(np.mean(rows[0]["returns"]))
        flops = rows[0]["flops_per_step"]
        lines.append(f"| {name.upper()} as trained | {before:.0f} | {flops:,.0f} | |")
        for row in rows[1:]:
            value = float(np.mean(row["returns"]))
            times = f"{flops / row['flops_per_step']:.1f}"
            kept = f"{value:.0f} ({percent(value / before, 1)} %)"
            lines.append(f"| {row['label']} | {kept} | {row['flops_per_step']:,.0f} | {times} |")
    return lines


def retrofit_times() -> list[str]:
    sac, ppo = (stored(f"retrofit/{name}-seed0-latency.json")["rows"] for name in ("sac", "ppo"))
    named = {"as trained": "as trained, Stable-Baselines3's `…`", "as trained, torch": "as trained, eager torch"}
    named |= {"as trained, numpy": "as trained, numpy engine", "as trained, onnxruntime": "as trained, ONNX Runtime"}
    named |= {"b = 0": "with exits (numpy), b = 0"} | {f"b = {b}": f"b = {b}" for b in (0.1, 0.2, 0.4)}
    return [
        f"| {words} | {min(sac[label]['rounds']):.0f} | {min(ppo[label]['rounds']):.0f} |"
        for label, words in named.items()
    ]


def beside_sb3_rows() -> list[str]:
    lines = []
    for row in beside_sb3():
        task = row["task"].split("-")
        env = {"halfcheetah": "HalfCheetah-v5", "cartpole": "CartPole-v1", "lunarlander": "LunarLander-v3"}[task[1]]
        ours, theirs = (f"{row[own]['mean']:.0f} ± {row[own]['std']:.0f}" for own in compare_sb3.LIBRARIES)
        passed = f"{'yes' if row['passed'] else 'no'} ({row['threshold']:.0f})"
        lines.append(f"| {task[0].upper()}, {env} | {row['steps']:,} | {ours} | {theirs} | {passed} |")
    return lines


def speeds() -> list[str]:
    results = [stored(f"agent_speed/threads{threads}.json")["result"] for threads in (1, 2)]
    lines = []
    for agent in ("sac", "td3"):
        for key, name in (("ours", "ours"), ("sbx", "sbx (JAX)"), ("sb3", "Stable-Baselines3")):
            cells = [f"{agent.upper()}, {name}"]
            for result in results:
                own = result[agent][key]
                ratio = "" if key == "sb3" else f" ({own['ratio_to_sb3']:.2f})"
                cells.append(f"{own['steps_per_second']:.1f}{ratio}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def front_rows(name: str) -> dict[str, Row]:
    comparison = fronts_of.read(RESULTS / "tradeoff" / f"{name}.json")
    return {row.label: row for row in summarise(comparison.points, comparison.settings["random_return"])}


def pendulum() -> list[str]:
    rows = front_rows("pendulum")
    own, large, small = (rows[label] for label in ("bexa-sac:64,64, b = 0.2", "sac:64,64", "dense:4"))
    coin, fit = (rows[f"{control} of {own.label}"] for control in ("coin", "fit"))
    return [
        f"at budget 0.2 saves {percent(own.saved, 1)} % of the FLOPs of SAC and earns {said(own.mean_return)}, where "
        f"SAC earns {said(large.mean_return)}",
        f"A coin in place of its gates earns {said(coin.mean_return)}, a plain actor of the same FLOPs "
        f"{said(fit.mean_return)}, and a plain actor of 4 units, whose critics keep 64, {said(small.mean_return)} at "
        f"{percent(small.saved, 1)} % fewer FLOPs",
    ]


def ends(found: list[Row], digits: int) -> str:
    """Return the least and the greatest mean return of some rows."""
    means = [row.mean_return for row in found]
    return f"{said(min(means), digits)} to {said(max(means), digits)}"


def cartpole() -> list[str]:
    rows = front_rows("cartpole")
    own = [row for row in rows.values() if not row.baseline]
    assert len(own) == 4
    assert all(row.learnt is False for row in own)
    fits, dearest = ([rows[f"{control} of {row.label}"] for row in own] for control in ("fit", "dearest"))
    split = [row for row in fits if row.split]
    assert len(split) == 1

    return [
        f"BEXA-DQN earns {ends(own, 1)} at both budgets and by both programs, plain networks of the same FLOPs "
        f"{ends([row for row in fits if not row.split], 1)} (one row has two groups of seeds), and 64 units "
        f"{said(rows['dense:64'].mean_return)}",
        f"The last exit of the same networks earns {ends(dearest, 1)} where it always acts",
    ]


def third_party() -> list[str]:
    rows = front_rows("retrofit-ppo-hopper")
    own = [row for label, row in rows.items() if label.startswith("ppo, b = ")]
    beside = {one: [rows[f"{one} of {row.label}"] for row in own] for one in ("student", "coin", "shuffled")}
    small, trained = rows["student:16 of ppo"], rows["ppo, as trained"]

    return [
        f"As trained it earns {said(trained.mean_return, 0)}; with exits at budgets 0, 0.1 and 0.3 {ends(own, 0)}, "
        f"plain networks of the same FLOPs {ends(beside['student'], 0)}, coins in place of the gates "
        f"{ends(beside['coin'], 0)}, their choices shuffled {ends(beside['shuffled'], 0)}, and a plain network of "
        f"16 units a layer {said(small.mean_return, 0)} at {percent(small.saved, 1)} % fewer FLOPs",
    ]


def weights_that_adapt() -> list[str]:
    shares = [row["last_fifth"] / row["budget"] for study in multiplier.stored() for row in study["rows"]]
    assert max(abs(share - 1) for share in shares) <= 0.05
    lines = [line for text in multiplier.tables().values() for line in text.splitlines()]
    least, most = percent(min(shares), 1), percent(max(shares), 1)
    return [
        *(re.sub(r"`[^`]*`", "`…`", line) for line in lines),
        f"All {len(shares)} trainings ended within 5 % of their budget, at {least} % to {most} % of it.",
    ]


CLAIMS: dict[str, Callable[[], list[str]]] = {
    "asymmetric rows": asymmetric_rows,
    "front of Pendulum": pendulum,
    "front of CartPole": cartpole,
    "front of a third party's policy": third_party,
    "MountainCar": mountain_car,
    "a master over frozen policies": master_at_the_end,
    "gates that are coins": gates_that_are_coins,
    "FLOPs of learning": learning,
    "early exits against plain agents": against_plain,
    "programs and losses": programs,
    "retrofit": retrofit,
    "time of an action": retrofit_times,
    "beside Stable-Baselines3": beside_sb3_rows,
    "steps a second": speeds,
    "a budget kept by a weight": weights_that_adapt,
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_page_says_what_was_stored(claim: str) -> None:
    said_there = prose(PAGE)
    found = CLAIMS[claim]()
    assert found
    for text in found:
        assert text in said_there, text


def test_no_interval_is_claimed_for_fewer_than_five_seeds() -> None:
    for path in ("bexa/comparisons.md", *(f"bexa/{task}.md" for task in BEXA_TASKS)):
        if (RESULTS / path).exists():
            assert "95% bootstrap" not in (RESULTS / path).read_text(), path
    assert "95 % interval" not in prose(PAGE)
