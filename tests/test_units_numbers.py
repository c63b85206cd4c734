"""What benchmarks/README.md says of units is made again from what ``benchmarks.units`` stored."""

import math
import statistics
from collections import Counter
from collections.abc import Callable

import pytest

from benchmarks.units import TEACHER_UNITS
from tests.stored import WORDS, percent, prose, said, stored

PAGE = "benchmarks/README.md"


def teacher() -> list[str]:
    record = stored("units/teacher.json")
    rows = [row for row in record["rows"] if row["width"] != TEACHER_UNITS]
    kept, seeds = Counter(row["kept"] for row in rows), len({row["seed"] for row in rows})
    assert all(abs(row["kept"] - TEACHER_UNITS) <= 1 for row in rows)
    assert sum(row["kept"] != TEACHER_UNITS for row in rows) <= 1
    worst = max(row["relative_error"] for row in rows)
    return [
        f"students of 8, 32 and 64 units ({seeds} seeds each) keep four in {kept[TEACHER_UNITS]} of {len(rows)}",
        f"Their error is at most {percent(worst, 4)} % of the teacher's variance",
    ]


def one_unit() -> list[str]:
    rows = stored("units/probe.json")["rows"]
    found = []
    for agent in ("TD3", "SAC"):
        own = [row["kept"] for row in rows if row["agent"] == agent]
        found.append(f"{agent} keeps one of 8 and of 32 in {own.count(1)} of {len(own)} runs")
    twos = [row["kept"] for row in rows if row["kept"] != 1]
    assert set(twos) <= {2}
    worst = max(row["regret"] for row in rows)
    return [*found, f"the policies miss {said(math.ceil(1e4 * worst) / 1e4, 4)} of reward a step at most"]


def limits() -> list[str]:
    record = stored("units/limits.json")
    rows = record["rows"]
    assert record["above"] == sum(row["found"] > row["limit"] for row in rows) == 0
    shares = [row["found"] / row["limit"] for row in rows]
    environments = len({row["env"] for row in rows})
    each = len(rows) // environments // len({row["key"] for row in rows})
    return [
        f"{len(rows)} random limits, {each} of parameters and {each} of FLOPs in each of {WORDS[environments]} "
        "environments: 0 passed",
        f"half of the networks have {percent(statistics.median(shares))} % of what they may have or more",
    ]


def offline() -> list[str]:
    rows = stored("units/cql.json")["rows"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    own = {name: [math.fsum(r["returns"]) / len(r["returns"]) for r in rows if r["name"] == name] for name in names}
    assert {len(returns) for returns in own.values()} == {2}
    told = {name: " and ".join(said(value, 0) for value in returns) for name, returns in own.items()}
    before = [row["return_before_rounding"] for row in rows if row["name"] == "pruned to 8,000"]
    return [
        f"2×256 earns {told['2×256']}, the same pruned to 8,000 parameters {told['pruned to 8,000']} "
        f"({' and '.join(said(value, 0) for value in before)} just before θ are rounded), and 2×85 from scratch "
        f"{told['2×85 from scratch']}",
    ]


def lunar_lander() -> list[str]:
    rows = stored("units/study-lunar-lander.json")["rows"]
    own: dict[str, list[dict]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        own.setdefault(row["method"], []).append(row)
    assert {len(runs) for runs in own.values()} == {2}

    def told(method: str, key: str) -> str:
        values = [row[key] if key == "final_return" else statistics.fmean(row[key]) for row in own[method]]
        return " and ".join(said(value, 0) for value in values)

    pruned, plain, fit = own["m8000"], own["dqn"][0], own["fit of m8000"]
    sizes = sorted(row["parameters"] for row in pruned)
    assert sizes[-1] <= 8_000
    undecided = {said(row["undecided_when_fixed"], 2) for row in pruned}
    return [
        f"DQN of 2×256 ({said(plain['parameters'], 0)} parameters) earns {told('dqn', 'final_return')} after training, "
        f"the same pruned to {said(sizes[0], 0)} and {said(sizes[-1], 0)} {told('m8000', 'final_return')}, and a plain "
        f"network of its FLOPs ({said(fit[0]['parameters'], 0)}) {told('fit of m8000', 'final_return')}",
        f"over the last fifth of training {told('dqn', 'returns_at_the_end')}, {told('m8000', 'returns_at_the_end')} "
        f"and {told('fit of m8000', 'returns_at_the_end')}",
        f"{undecided.pop()} of all θ lay between 0.05 and 0.95" if len(undecided) == 1 else "",
    ]


def microseconds() -> list[str]:
    record = stored("units/latency.json")
    device, rows = record["device"], record["rows"]
    assert all(row["fitted_us"] <= row["limit_us"] for row in rows)
    inside = sum(row["measured_us"] <= row["limit_us"] for row in rows)
    return [
        f"is {percent(device['off_median'])} % off on {device['held_out']} networks that it has not seen, "
        f"{percent(device['off_most'])} % at most",
        f"{inside} of {len(rows)} policies, pruned to limits of {rows[0]['limit_us']} to {rows[-1]['limit_us']} µs, "
        "take at most that when they are measured",
        f"a layer costs {said(device['layer_us'])} µs whatever its width",
    ]


def cost() -> list[str]:
    record = stored("units/cost.json")
    seconds = record["seconds"]
    for stage, ratio in record["ratios"].items():
        pairs = zip(seconds[stage], seconds["plain"], strict=True)
        assert statistics.median(a / b for a, b in pairs) == pytest.approx(ratio)
    gated, pruned = (said(record["ratios"][stage], 2) for stage in ("gated", "pruned"))
    return [
        f"takes {gated} times a plain update of SAC with 2×256 units",
        f"pruned to {said(record['parameters']['pruned'], 0)} parameters {pruned} times",
    ]


def kills() -> list[str]:
    names = ("sac-units", "td3-units", "dqn-units", "sac-exits-units")
    records = [stored(f"resume/{name}.json") for name in names]
    assert all(record["equal"] for record in records)
    return [f"{len(records[0]['kills'])} SIGKILLs on each of SAC, TD3 and DQN with units and SAC with exits and units"]


CLAIMS: dict[str, Callable[[], list[str]]] = {
    "a teacher of four": teacher,
    "a policy of one": one_unit,
    "random limits": limits,
    "learning from data": offline,
    "learning to land": lunar_lander,
    "a limit in microseconds": microseconds,
    "what looking costs": cost,
    "kills": kills,
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_page_says_what_was_stored(claim: str) -> None:
    there = prose(PAGE)
    assert [sentence for sentence in CLAIMS[claim]() if sentence not in there] == []
