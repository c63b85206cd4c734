"""`budget eval --budget 0 0.5 1`: an agent that reads its budget is evaluated at each, and its front is drawn."""

import json
from pathlib import Path

import pytest

from agents.cli import main
from agents.report.finding import findings
from agents.report.tradeoff import Comparison, summarise

WORDS = [
    "--env",
    "Pendulum-v1",
    "--steps",
    "40",
    "--net-arch",
    "8",
    "8",
    "--learning-starts",
    "20",
    "--batch-size",
    "8",
]
WORDS += ["--eval-every", "0", "--eval-episodes", "1", "--no-tensorboard"]


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "reading"
    asked = ["--budget-input", "--budget-from-observation"]
    assert main(["train", "bexa-sac", *WORDS, *asked, "--run", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "fixed"
    assert main(["train", "bexa-sac", *WORDS, "--budget", "0.3", "--run", str(folder)]) == 0
    return folder


def test_each_budget_is_a_row_of_the_front(reading: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(reading), "--budget", "0", "0.5", "1", "--episodes", "2", "--out", str(tmp_path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"Picture: {tmp_path / 'tradeoff.png'}" in said
    points = Comparison.read(tmp_path).points
    assert f"- {findings(summarise(points))[0]}\n" in said  # the page's first sentence
    assert [(point.label, point.extras["budget"]) for point in points] == [
        ("BexaSAC, b = 0", 0),
        ("BexaSAC, b = 0.5", 0.5),
        ("BexaSAC, b = 1", 1),
    ]
    assert all(len(point.episodes) == 2 for point in points)
    # The log odds of the budget are added to the gates': at 0 all of them are open, at 1 none is.
    assert points[0].flops_per_step < points[2].flops_per_step


def test_a_front_lies_in_its_run_s_folder(reading: Path) -> None:
    assert main(["eval", str(reading), "--budget", "0.2", "0.4", "--episodes", "1"]) == 0
    assert (reading / "front" / "report.html").is_file()


def test_one_budget_is_an_evaluation(reading: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(reading), "--budget", "0.5", "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["budget"] == 0.5


@pytest.mark.parametrize(
    ("which", "budgets", "said"),
    [
        ("fixed", ["0.5"], "expected a policy that reads its budget from the observation"),
        ("reading", ["0.5", "0.5"], "numbers from 0 to 1, each once"),
        ("reading", ["2"], "numbers from 0 to 1"),
    ],
)
def test_what_has_no_such_budget_is_refused(
    which: str, budgets: list[str], said: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(which)
    capsys.readouterr()
    assert main(["eval", str(folder), "--budget", *budgets, "--episodes", "1"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
