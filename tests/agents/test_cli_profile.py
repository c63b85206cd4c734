"""``budget profile`` of policies that choose among sub-policies: every part, and the step that costs most."""

import json
import re
from pathlib import Path

import pytest

from agents.cli import main
from agents.cli.profiling import PERCENTILES, together
from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import Energy, Latency, Profile

SMALL = 2 * (3 * 4 + 4 * 4 + 4 * 2)  # two layers of 4 between 3 observations and twice 1 action
LARGE = 2 * (3 * 16 + 16 * 16 + 16 * 2)
MASTER = 2 * (3 * 8 + 8 * 8 + 8 * 2)
TRAIN = ["--env", "Pendulum-v1", "--max-episode-steps", "25", "--batch-size", "8", "--no-tensorboard"]
TRAIN += ["--steps", "50", "--eval-every", "0"]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of a DQN that chooses between two SAC runs for 4 steps."""
    folder = tmp_path_factory.mktemp("runs")
    for name, width in (("small", "4"), ("large", "16")):
        words = ["train", "sac", *TRAIN, "--net-arch", width, width, "--run", str(folder / name)]
        assert main(words) == 0
    words = ["train", "dqn", *TRAIN, "--net-arch", "8", "8", "--run", str(folder / "master"), "--sub-policy-hold", "4"]
    assert main([*words, "--sub-policies", str(folder / "small"), str(folder / "large")]) == 0
    return folder / "master"


@pytest.fixture(scope="module")
def asymmetric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of the recipe with networks of the same sizes and the same hold."""
    folder = tmp_path_factory.mktemp("runs") / "asymmetric"
    words = ["train", "asymmetric", *TRAIN, "--net-arch", "16", "16", "--small-net-arch", "4", "4", "--hold", "4"]
    assert main([*words, "--master-net-arch", "8", "8", "--run", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("kind", ["master", "asymmetric"])
def test_every_part_is_reported_and_the_dearest_step_is_judged(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = request.getfixturevalue(kind)
    capsys.readouterr()
    words = ["profile", str(run), "--samples", "20"]
    assert main([*words, "--hz", "0.01", "--out", str(tmp_path / "card.json")]) == 0
    shown = capsys.readouterr().out
    found = [int(number.replace(",", "")) for number in re.findall(r"FLOPs per action +([\d,]+)", shown)]
    assert found == [MASTER, SMALL, LARGE, MASTER + LARGE]
    assert re.search(rf"small +{SMALL + MASTER / 4:,.1f}\n +large +{LARGE + MASTER / 4:,.1f}\n", shown)
    assert "with a choice every 4 steps" in shown
    assert re.search(r"latencies of the selector and (small|large) added", shown)
    assert shown.count("Hz: fits") == 1
    assert main([*words, "--hz", "1e9"]) == 1
    assert capsys.readouterr().out.count("Hz: does not fit") == 1
    cards = {name: Profile.load(tmp_path / f"card{name}.json") for name in ("", ".selector", ".small", ".large")}
    assert [card.flops for card in cards.values()] == [MASTER + LARGE, MASTER, SMALL, LARGE]
    whole, selector, small, large = cards.values()
    slow = max(small, large, key=lambda card: card.latency.p99_us)
    for key in PERCENTILES:
        added = getattr(selector.latency, key) + getattr(slow.latency, key)
        assert getattr(whole.latency, key) == pytest.approx(added)
    # Weights and biases of two hidden layers and the output.
    assert small.parameters == 4 * 4 + 5 * 4 + 5 * 2
    assert large.parameters == 4 * 16 + 17 * 16 + 17 * 2
    assert selector.parameters == 4 * 8 + 9 * 8 + 9 * 2
    assert whole.parameters == small.parameters + large.parameters + selector.parameters
    assert json.loads((tmp_path / "card.json").read_text())["fits"] is True


def card(name: str, flops: int, p99: float, joules: float | None = None) -> Profile:
    latency = Latency(p99 / 2, p99 / 2, p99, p99 / 2, samples=1, warmup=0, threads=1, synchronised=None)
    energy = Energy(joules, "unavailable" if joules is None else "estimated", calls=1, seconds=1.0)
    return Profile(name, flops, "matmul", 1, latency, energy, None, None, "cpu", {})


def test_two_parts_that_fit_alone_need_not_fit_together() -> None:
    parts = {"selector": card("s", 10, 600.0, 1e-6), "small": card("a", 5, 500.0, 1e-6), "large": card("b", 50, 300.0)}
    # 1 kHz is 1,000 µs: the slowest sub-policy is the small one, the dearest in FLOPs the large one.
    whole, lines = together(parts, (5,), 1000.0, "both")
    assert (whole.latency.p99_us, whole.flops, whole.fits) == (1100.0, 60, False)
    assert whole.energy.joules == 2e-6
    assert "FLOPs are those of the selector and of large, latencies of the selector and small added" in lines[-5]
    assert "does not fit" in lines[-1]
    assert together(parts, (5,), 900.0, "both")[0].fits is True
    assert together(parts, (5,), None, "both")[0].fits is None
    with pytest.raises(ConfigError, match="expected a control rate above 0"):
        together(parts, (5,), 0.0, "both")


def test_energy_of_the_whole_is_unknown_where_that_of_a_part_is() -> None:
    parts = {"selector": card("s", 10, 600.0, 1e-6), "small": card("a", 5, 500.0)}
    assert together(parts, (5,), None, "both")[0].energy.joules is None
