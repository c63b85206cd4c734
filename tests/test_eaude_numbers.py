"""What benchmarks/README.md says of EauDeQN is made again from what ``benchmarks.eaude`` stored."""

import statistics
from collections.abc import Callable

import pytest

from benchmarks.eaude import tables
from benchmarks.eaude.study import GENERATIONS, TASKS, stored
from budget_wrappers.selection.population import REGIMES
from tests.stored import prose, said
from tests.stored import stored as stored_file

PAGE = "benchmarks/README.md"
WIDTH = 32


def final(method: str) -> dict:
    (run,) = stored("breakout", WIDTH, method, TASKS["breakout"][1])
    return {**run["final"], "late": tables.late_return(run)}


def own_pace() -> list[str]:
    low, _, high = tables.null_band(REGIMES["mild"])[:, -1]
    eaude, null = final("eaude")["sparsity"], final("null")["sparsity"]
    assert eaude < low < null < high
    told = [said(own, 3) for own in (eaude, null, low, high)]
    return [
        f"DQN of 2×{WIDTH}, 200,000 steps, {GENERATIONS} generations, one seed",
        f"EauDe ends at a sparsity of {told[0]}, below the null model, which ends at {told[1]} and in 90 % of "
        f"simulated runs between {told[2]} and {told[3]}",
    ]


def returns() -> list[str]:
    plain, dense, eaude, null, poly = (said(final(m)["late"]) for m in ("plain", "dense", "eaude", "null", "polyprune"))
    assert final("dense")["late"] < final("plain")["late"]
    return [
        f"the agent alone returns {plain}, the dense population {dense}, EauDe {eaude}, the null model {null} and "
        f"PolyPrune at 0.95 {poly}",
    ]


def zeros() -> list[str]:
    (flops,) = {final(method)["flops_per_step"] for method in ("plain", "dense", "eaude", "null", "polyprune")}
    return [f"every row executes {said(flops, 0)} FLOPs an action"]


def cost() -> list[str]:
    cases = stored_file("eaude/update_cost.json")["cases"]
    for case in cases.values():
        pairs = zip(case["seconds"]["population"], case["seconds"]["plain"], strict=True)
        assert statistics.median(a / b for a, b in pairs) == pytest.approx(case["ratios"]["population"])
    times = {name: said(case["ratios"]["population"], 2) for name, case in cases.items()}
    flops = {name: said(case["ratios_of_flops"]["population"], 2) for name, case in cases.items()}
    dqn, sac = ([own[name] for own in (times,) for name in cases if name.startswith(kind)] for kind in ("dqn", "sac"))
    of_dqn = sorted(flops[name] for name in cases if name.startswith("dqn"))
    return [
        f"takes, in turns beside other work, {dqn[0]}, {dqn[1]} and {dqn[2]} times that of a plain DQN",
        f"at {of_dqn[0]} to {of_dqn[-1]} times the FLOPs, and {sac[0]} and {sac[1]} times that of SAC",
        f"at {flops['sac 2x32']} and {flops['sac 2x256']} times the FLOPs",
    ]


def kills() -> list[str]:
    names = ("eaude-dqn", "eaude-sac", "polyprune-dqn", "eaude-dqn-diverging")
    records = [stored_file(f"resume/{name}.json") for name in names]
    assert all(record["equal"] and len(record["kills"]) == 20 for record in records)
    return ["20 SIGKILLs on each of EauDe-DQN, EauDe-SAC, PolyPrune-DQN and an EauDe-DQN that loses a member"]


CLAIMS: dict[str, Callable[[], list[str]]] = {
    "own pace": own_pace,
    "returns": returns,
    "zeros": zeros,
    "cost": cost,
    "kills": kills,
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_page_says_what_was_stored(claim: str) -> None:
    there = prose(PAGE)
    assert [sentence for sentence in CLAIMS[claim]() if sentence not in there] == []


def test_the_stored_table_is_the_one_that_the_raw_data_make() -> None:
    assert (tables.FOLDER / "breakout.md").read_text() == tables.markdown("breakout")


def test_growth_cap_times_generations_is_that_of_the_publication() -> None:
    for run in stored("breakout", WIDTH, "eaude", TASKS["breakout"][1]):
        (method,) = run["methods"]["methods"]
        assert method["settings"]["growth_cap"] * GENERATIONS == pytest.approx(10)
