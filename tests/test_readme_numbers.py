"""Every number in README.md is recomputed from ``benchmarks/results/``, or is one of a short list of plain constants.

Each function below returns a sentence, or the part of one that holds numbers, with its numbers from raw data. README
has to have it, letter for letter.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import demo
from tests.stored import RESULTS, WORDS, numbers_beside, percent, prose, said, stored

PLAIN = (
    "20 ms control periods",
    "nothing but Python 3.11 and make",
    "counts 2 FLOPs per multiply-accumulate",
    "(n³/3 for a Cholesky factor)",
    "for which that counter reports 0",
    "counts 0 and is named",
    "Five seeds or more get a 95 % interval",
    "begins with 2×256 units",
    'latency at batch 1, "fits at 50 Hz or not"',
    "is truncated after 10,000 steps",
)
"""What is no measurement."""


def mean_return(record: dict[str, Any]) -> float:
    """Return the mean of the returns of all episodes of a record."""
    episodes = record["by_episode"] if "by_episode" in record else record["episodes"]
    return math.fsum(episode["return"] for episode in episodes) / len(episodes)


def flops_a_step(record: dict[str, Any]) -> float:
    """Return all FLOPs of a record's episodes over all of their steps."""
    episodes = record["by_episode"] if "by_episode" in record else record["episodes"]
    return sum(episode["flops"] for episode in episodes) / sum(episode["length"] for episode in episodes)


# ---- the demonstration ----------------------------------------------------------------------------------------------


DEMO_ROWS = {
    "sac, b = 0.2": "with early exits, budget 0.2",
    "coin of sac, b = 0.2": "a coin in place of their gates",
    "student of sac, b = 0.2": "a plain network of the same FLOPs",
    "sac, b = 0": "with early exits, budget 0",
    "coin of sac, b = 0": "a coin in place of their gates",
    "student of sac, b = 0": "a plain network of the same FLOPs",
    "student:16 of sac": "a plain network with 16 units a layer",
    "student:4 of sac": "a plain network with 4 units a layer",
}


def demo_sets() -> list[dict[str, Any]]:
    """Return every set of the demonstration that was stored."""
    return [one for path in sorted((RESULTS / "demo").glob("*.json")) for one in stored(f"demo/{path.name}")["sets"]]


def demo_shares(label: str, key: str) -> list[float]:
    """Return ``key`` of a row as a share of the policy's own, of all seeds of all sets."""
    return [value / one["rows"][demo.REFERENCE][key][0] for one in demo_sets() for value in one["rows"][label][key]]


def demonstration() -> str:
    settings = stored("tradeoff/half-cheetah.json")["settings"]
    files = [stored(f"demo/{path.name}") for path in sorted((RESULTS / "demo").glob("*.json"))]
    numbers = [{one["set"] for one in file["sets"]} for file in files]
    assert [(file["threads"], file["capability"]) for file in files] == [(1, None), (2, "default")]
    assert numbers[0] == numbers[1]
    return (
        f"On HalfCheetah-v5, {len(numbers[0]) * demo.SEEDS} seeds in {len(numbers[0])} disjoint sets of "
        f"{WORDS[demo.SEEDS]}, each once on one thread and once on two without vector instructions, "
        f"{WORDS[settings['episodes']]} episodes each"
    )


def as_trained() -> str:
    first = demo_sets()[0]["rows"][demo.REFERENCE]
    widths = stored("bundled/half-cheetah.json")["settings"]["net_arch"]
    name = f"SAC as trained, {WORDS[len(widths)]} layers of {widths[0]} units"
    return f"| {name} | {first['returns'][0]:,.0f} | {first['flops_per_step'][0]:,.0f} |"


def row(label: str, name: str) -> str:
    kept, spent = demo_shares(label, "returns"), demo_shares(label, "flops_per_step")
    ends = f"{said(math.floor(100 * min(kept)), 0)} to {said(math.ceil(100 * max(kept)), 0)} %"
    return f"| {name} | {ends} | {percent(math.fsum(spent) / len(spent), 1)} % |"


def kept_on_every_seed() -> str:
    quarter, twelfth = (math.floor(100 * min(demo_shares(f"sac, b = {b}", "returns"))) for b in ("0.2", "0"))
    return (
        f"At a quarter of the FLOPs the exits keep at least {quarter} % of the return on every seed, at a twelfth at "
        f"least {twelfth} %"
    )


def gates_ahead() -> str:
    own, coins, students = (demo_shares(f"{of}sac, b = 0.2", "returns") for of in ("", "coin of ", "student of "))
    counts = [sum(one > other for one, other in zip(own, others, strict=True)) for others in (coins, students)]
    return (
        f"At budget 0.2 the gates earn more than a coin of the same cost on {counts[0]} of {len(own)} runs, and than "
        f"the plain network of the same FLOPs on {counts[1]}"
    )


def training_of_the_policy() -> str:
    return f"a SAC policy that was trained for {stored('bundled/half-cheetah.json')['steps']:,} steps"


# ---- a master over frozen policies ----------------------------------------------------------------------------------


def ratios(master: Callable[[dict[str, Any]], Any]) -> tuple[list[float], list[float]]:
    """Return return and FLOPs of a master beside those of the large policy, seed by seed."""
    records = [stored(f"asymmetric/mediation/seed{seed}.json") for seed in range(3)]
    pairs = [(master(record), record["outcomes"]["large"]) for record in records]
    returns = [mean_return(own) / mean_return(large) for own, large in pairs]
    return returns, [flops_a_step(own) / flops_a_step(large) for own, large in pairs]


def small_beside_large() -> str:
    returns, _ = ratios(lambda record: record["outcomes"]["small"])
    ends = f"{percent(min(returns))} to {percent(max(returns))}"
    return f"On InvertedDoublePendulum-v5 a small policy alone returns {ends} % of what a large one does"


def master_at_the_end() -> str:
    returns, flops = ratios(lambda record: record["master_at_the_end"])
    kept = f"{percent(min(returns), 1)} to {percent(max(returns), 1)} %"
    spent = f"{percent(min(flops))} to {percent(max(flops))} %"
    return (
        f"A master over the two keeps {kept} at {spent} of the large policy's FLOPs, its own included, as it is at the "
        "end of its training"
    )


def master_that_was_picked() -> str:
    returns, flops = ratios(lambda record: record["outcomes"]["master"])
    least = math.floor(1000 * min(returns)) / 10
    spent = f"{percent(min(flops))} to {percent(max(flops))} %"
    return (
        f"and at least {least} % at {spent} where the best of its evaluations while training picks it "
        f"({WORDS[len(returns)]} seeds"
    )


# ---- early exits ----------------------------------------------------------------------------------------------------


def cheetah(method: str) -> list[dict[str, Any]]:
    return [stored(f"bexa/cheetah/{method}-200000-seed{seed}.json") for seed in (0, 1)]


def early_exits() -> str:
    pairs = list(zip(cheetah("bexa-sac-b0.3"), cheetah("sac"), strict=True))
    fewer = {said(plain["acting_flops_a_step"] / own["acting_flops_a_step"]) for own, plain in pairs}
    lower = [percent(1 - mean_return(own["final"]) / mean_return(plain["final"])) for own, plain in pairs]
    learning = {said(own["learning_flops"] / plain["learning_flops"]) for own, plain in pairs}
    (times,), (more,) = fewer, learning
    steps = pairs[0][0]["run"]["steps"]
    return (
        f"On HalfCheetah-v5 ({steps:,} steps, {WORDS[len(pairs)]} seeds) it acts on {times} times fewer FLOPs than SAC "
        f"while training, ends {' and '.join(lower)} % lower, and takes {more} times the FLOPs to learn"
    )


def coin() -> str:
    runs = cheetah("bexa-sac-b0.3")
    first, second, last = runs[0]["exit_flops"]
    cost = (second - first) / (last - first)
    paid = percent((runs[0]["budget"] - cost) / (1 - cost))
    shares = [run["final"].get("share/exit 3") or run["final"]["share_steps"]["exit 3"] for run in runs]
    assert {percent(share) for share in shares} == {paid}
    return f"they leave the last exit the share that the budget pays for, {paid} %, like a coin"


def time_of_exits() -> str:
    rows = stored("retrofit/sac-seed0-latency.json")["rows"]
    least = {label: min(one["rounds"]) for label, one in rows.items()}
    exits = [value for label, value in least.items() if label.startswith("b = ")]
    return (
        f"an action takes {min(exits):.0f} to {max(exits):.0f} µs with exits and {least['as trained, numpy']:.0f} µs "
        "without (2×256, retrofitted, numpy engine)"
    )


def retrofit() -> str:
    rows = {one["label"]: one for one in stored("retrofit/sac-seed0.json")["rows"]}
    before = rows["SAC as trained"]

    def kept(label: str) -> str:
        return percent(math.fsum(rows[label]["returns"]) / math.fsum(before["returns"]), 1)

    def fewer(label: str) -> str:
        return said(before["flops_per_step"] / rows[label]["flops_per_step"])

    assert rows["b = 0"]["share_steps"]["exit 1"] > 0.999
    return (
        f"keeps {kept('b = 0.1')} % of its return at {fewer('b = 0.1')} times fewer FLOPs with b = 0.1, and "
        f"{kept('b = 0')} % at {fewer('b = 0')} times fewer with b = 0, which is a student of one hidden layer"
    )


CLAIMS: dict[str, Callable[[], str]] = {
    "the demonstration": demonstration,
    "as trained": as_trained,
    "its training": training_of_the_policy,
    "what exits keep": kept_on_every_seed,
    "what gates add": gates_ahead,
    **{label: lambda label=label, name=name: row(label, name) for label, name in DEMO_ROWS.items()},
    "small beside large": small_beside_large,
    "the master at the end": master_at_the_end,
    "the master that was picked": master_that_was_picked,
    "early exits": early_exits,
    "a coin": coin,
    "time of exits": time_of_exits,
    "retrofit": retrofit,
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_says_what_was_stored(claim: str) -> None:
    assert CLAIMS[claim]() in prose("README.md")


@pytest.mark.parametrize("number", range(len(demo_sets())))
def test_every_stored_set_of_the_demonstration_is_within_what_is_claimed(number: int) -> None:
    assert set(demo.CLAIMS) == set(DEMO_ROWS)
    assert demo.broken(demo_sets()[number]["rows"]) == []


def test_a_row_outside_of_its_claim_is_found() -> None:
    rows = json.loads(json.dumps(demo_sets()[0]["rows"]))
    rows["sac, b = 0.2"]["returns"][1] = 0.0
    rows["student:16 of sac"]["flops_per_step"][0] *= 3
    found = demo.broken(rows)
    assert [text.split(":")[0] for text in found] == ["sac, b = 0.2, seed 1", "student"]


def test_every_number_is_measured_or_a_plain_constant() -> None:
    claims = [claim() for claim in CLAIMS.values()]
    assert numbers_beside(prose("README.md"), [*claims, *PLAIN]) == []


@pytest.mark.parametrize("constant", PLAIN)
def test_no_constant_is_listed_that_readme_does_not_have(constant: str) -> None:
    assert constant in prose("README.md")


def test_a_number_that_nothing_measures_is_found() -> None:
    text = "It saves 38 % on Pendulum-v1 of Stable-Baselines3. " + "Claim 7."
    assert [found.strip() for found in numbers_beside(text, ["Claim 7."])] == ["It saves 38 % on Pendulum-v1 of"]
