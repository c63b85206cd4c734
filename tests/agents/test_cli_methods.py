"""``budget train --with``: each key of a budget method as a flag, in files and in the help."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents.cli import main
from agents.cli.methods import aliases_of, groups_of
from agents.loop.known_methods import METHODS, method_named
from agents.loop.method import Method, MethodConfig
from agents.studies.names import AGENTS, agent_named

SAC = ["train", "sac", "--env", "Pendulum-v1"]
ASYMMETRIC = ["train", "asymmetric", "--env", "Pendulum-v1"]


@dataclass(frozen=True)
class ThinningConfig(MethodConfig):
    """Keys that others have, too.

    Attributes:
        every: PolyPrune's, too.
        gamma: the agent's, too.
        steps: the run's, too.
        config: the command's, too.
        own: nothing else's.
    """

    every: int = 5
    gamma: float = 0.5
    steps: int = 3
    config: int = 0
    own: bool = True


class Thinning(Method):
    """Does nothing."""

    name, config_class = "thinning", ThinningConfig


@pytest.fixture
def thinning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "thinning", (__name__, "Thinning"))


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what ``--dry-run`` prints, read as TOML."""
    assert main([*words, "--dry-run"]) == 0
    return tomllib.loads(capsys.readouterr().out)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which ``words`` are refused."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line.removeprefix("budget train: error: ")


def written(text: str, folder: Path) -> str:
    path = folder / "methods.toml"
    path.write_text(text)
    return str(path)


# ---- flags ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--with", "exits", "polyprune", "--budget", "0.3", "--final", "0.9", "--exit-after", "0", "2"],
        [
            "--exits.budget=0.3",
            "--polyprune.final",
            "0.9",
            "--exits.exit_after",
            "0",
            "2",
            "--with",
            "exits",
            "polyprune",
        ],
        [
            "--exits.exit-after",
            "0",
            "2",
            "--with",
            "exits",
            "--budget=0.3",
            "--with",
            "exits",
            "polyprune",
            "--final=0.9",
        ],
    ],
    ids=["plain", "qualified", "mixed"],
)
def test_a_key_of_one_method_is_given_plainly_or_with_its_method(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    table = shown([*SAC, *words], capsys)
    assert table["with"] == ["exits", "polyprune"]
    assert (table["exits"]["budget"], table["exits"]["exit_after"], table["polyprune"]["final"]) == (0.3, [0, 2], 0.9)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("--budget-from-observation", True),
        ("--no-budget-from-observation", False),
        ("--exits.budget-from-observation", True),
        ("--exits.no-budget-from-observation", False),
    ],
)
def test_switches_are_switched_on_and_off(word: str, value: bool, capsys: pytest.CaptureFixture[str]) -> None:
    table = shown([*SAC, "--with", "exits", "--gate-training", "budget", word], capsys)
    assert table["exits"]["budget_from_observation"] is value


def test_sub_policies_have_methods_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    large = ["--large.with", "exits", "polyprune", "--large.budget", "0.3", "--large.polyprune.every", "7"]
    table = shown([*ASYMMETRIC, *large, "--small.with", "polyprune", "--small.every", "9"], capsys)
    assert (table["large"]["with"], table["small"]["with"]) == (["exits", "polyprune"], ["polyprune"])
    assert (table["large"]["exits"]["budget"], table["large"]["polyprune"]["every"]) == (0.3, 7)
    assert table["small"]["polyprune"]["every"] == 9
    assert "exits" not in table["small"]


def test_without_methods_nothing_of_them_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert not {"with", "exits", "polyprune"} & shown(SAC, capsys).keys()
    assert not {"small", "large"} & shown(ASYMMETRIC, capsys).keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*SAC, "--with", "exitz"], "there is no method 'exitz'; did you mean 'exits'?"),
        ([*ASYMMETRIC, "--large.with", "polyprun"], "there is no method 'polyprun'; did you mean 'polyprune'?"),
        ([*SAC, "--with", "exits", "exits"], "the methods exits, exits: expected each once; leave one of them out"),
        (
            ["train", "bexa-sac", "--with", "exits"],
            "the methods exits, exits: expected each once; leave one of them out",
        ),
        (
            [*SAC, "--with", "polyprune", "--exits.budget", "0.3"],
            "exits.budget is a key of the method exits, which is not given: expected --with polyprune exits; add it",
        ),
        (
            [*ASYMMETRIC, "--small.with", "exits", "--large.exits.budget=0.3"],
            "large.exits.budget is a key of the method exits, which is not given: expected --large.with exits; add it",
        ),
        ([*SAC, "--with", "exits", "--budget", "-1"], "budget=-1.0: expected 0, the cheapest exit's cost, or more"),
        (["train", "dqn", "--env", "CartPole-v1", "--with", "exits", "--dueling"], "dueling=True: expected False"),
    ],
)
def test_what_cannot_be_given_is_refused_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert message in refused([*words, "--run", str(tmp_path / "run")], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("word", "options"),
    [
        ("--every", "--thinning.every or --polyprune.every"),
        ("--gamma", "--agent.gamma or --thinning.gamma"),
        ("--steps", "--train.steps or --thinning.steps"),
    ],
)
def test_a_shared_key_is_refused_and_its_full_names_are_told(
    word: str, options: str, thinning: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SAC, "--with", "thinning", "polyprune", f"{word}=1"]
    assert refused(words, capsys) == f"{word} may mean several options: expected {options}; pass one of them"


def test_a_shared_key_is_given_with_its_owner(
    thinning: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--agent.gamma", "0.9", "--thinning.gamma=0.8", "--train.steps", "70", "--thinning.steps", "2", "--no-own"]
    words = ["train", "sac", "--env", "Pendulum-v1", "--with", "thinning", "polyprune", *own, "--thinning.config", "4"]
    table = shown([*words, "--polyprune.every", "8"], capsys)
    assert (table["agent"]["gamma"], table["train"]["steps"]) == (0.9, 70)
    assert table["thinning"] == {"every": 5, "gamma": 0.8, "steps": 2, "config": 4, "own": False}
    assert table["polyprune"]["every"] == 8
    # An option of the command itself keeps its meaning: --config names a file, in which gamma may mean either.
    line = refused(["train", "sac", "--with", "thinning", "--config", written("gamma = 0.9", tmp_path)], capsys)
    assert "methods.toml: --gamma may mean several options: expected --agent.gamma or --thinning.gamma" in line


def test_no_option_of_an_agent_or_method_is_hidden_by_another() -> None:
    for method in METHODS:
        assert method_named(method).name == method
    for agent in AGENTS:
        agent_class = agent_named(agent)
        keys = set(agent_class.config_class.__dataclass_fields__)
        assert not keys & {*METHODS, "agent", "train", "small", "large", "with"}
    groups = groups_of(agent_named("sac"), [], ["--with", *METHODS])
    known = agent_named("sac").config_class.__dataclass_fields__
    assert all(len(options) == 1 for options in aliases_of(groups, agent_named("sac"), known).values())


# ---- help -----------------------------------------------------------------------------------------------------------


def helped(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as stopped:
        main(["train", *words, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "there", "absent"),
    [
        (["sac"], ["--with [{exits,polyprune,population,units}", "--budget for --exits.budget"], ["--exits.gate-loss"]),
        (["sac", "--with", "exits"], ["--exits.budget FLOAT", "b, mean cost of acting"], ["--polyprune.final"]),
        (
            ["asymmetric"],
            ["--small.with [{exits,polyprune,population,units}", "--large.with [{exits,polyprune,population,units}"],
            ["--large.exits."],
        ),
        (["asymmetric", "--large.with", "polyprune"], ["--large.polyprune.final FLOAT"], ["--small.polyprune"]),
    ],
    ids=str,
)
def test_help_lists_the_keys_of_the_methods_given_and_names_the_others(
    words: list[str],
    there: list[str],
    absent: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = helped(words, capsys, monkeypatch)
    assert [part for part in there if part not in text] == []
    assert [part for part in absent if part in text] == []


def test_help_of_the_verb_names_the_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--with METHODS" in text
    assert "METHODS: exits, polyprune" in text


# ---- files ----------------------------------------------------------------------------------------------------------

IN_FILES = [
    'with = ["exits", "polyprune"]\nbudget = 0.3\nfinal = 0.9',
    'with = ["exits", "polyprune"]\nexits.budget = 0.3\npolyprune.final = 0.9',
    'with = ["exits", "polyprune"]\n[exits]\nbudget = 0.3\n[polyprune]\nfinal = 0.9',
]


@pytest.mark.parametrize("text", IN_FILES)
def test_a_file_has_the_same_keys(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = shown([*SAC, "--config", written(text, tmp_path)], capsys)
    assert table["with"] == ["exits", "polyprune"]
    assert (table["exits"]["budget"], table["polyprune"]["final"]) == (0.3, 0.9)


@pytest.mark.parametrize("flag", ["--budget", "--exits.budget"])
@pytest.mark.parametrize("text", IN_FILES)
def test_flags_override_the_file(text: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = shown([*SAC, "--config", written(text, tmp_path), flag, "0.7"], capsys)
    assert (table["exits"]["budget"], table["polyprune"]["final"]) == (0.7, 0.9)


def test_the_methods_of_the_command_line_replace_those_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written('with = "exits"', tmp_path)
    assert shown([*SAC, "--config", path], capsys)["with"] == ["exits"]
    table = shown([*SAC, "--config", path, "--with", "polyprune"], capsys)
    assert (table["with"], "exits" in table) == (["polyprune"], False)
    assert "with" not in shown([*SAC, "--config", path, "--with"], capsys)


@pytest.mark.parametrize(
    "text",
    [
        '[large]\nwith = ["exits", "polyprune"]\nbudget = 0.3\n[large.polyprune]\nevery = 7',
        'large.with = ["exits", "polyprune"]\nlarge.exits.budget = 0.3\nlarge.every = 7',
    ],
)
def test_a_file_has_tables_for_the_sub_policies(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = shown([*ASYMMETRIC, "--config", written(text, tmp_path)], capsys)
    assert (table["large"]["exits"]["budget"], table["large"]["polyprune"]["every"]) == (0.3, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('with = ["exitz"]', "there is no method 'exitz'; did you mean 'exits'?"),
        ("with = [3]", "there is no method '3'; one of exits, polyprune"),
        ("[exits]\nbudget = 0.3", "exits.budget is a key of the method exits, which is not given"),
        ('with = ["exits"]\n[exits]\nbudgte = 0.3', "has no key 'exits.budgte'; did you mean 'exits.budget'?"),
        ('with = ["exits"]\nbudgte = 0.3', "has no key 'budgte'; did you mean 'budget'?"),
        ('with = ["exits"]\n[exits.budget]\nx = 0.3', "exits.budget is a table: expected a value"),
        ("[large]\nwith = []", "has no key 'large'"),
    ],
)
def test_keys_of_a_file_are_checked(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused([*SAC, "--config", written(text, tmp_path)], capsys)


@pytest.mark.parametrize(
    "words",
    [
        [*SAC, "--with", "exits", "polyprune", "--budget", "0.3", "--gate-loss-scale", "1e-05"],
        [*SAC, "--with", "thinning", "polyprune", "--agent.gamma", "0.9", "--train.steps", "9", "--no-own"],
        [*ASYMMETRIC, "--large.with", "exits", "--large.exit-after", "0", "2", "--small.with", "polyprune"],
        ["train", "bexa-sac", "--env", "Pendulum-v1", "--with", "polyprune", "--budget", "0.3"],
    ],
    ids=" ".join,
)
def test_what_dry_run_prints_is_a_config_that_gives_the_same(
    words: list[str], thinning: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--dry-run"]) == 0
    first = capsys.readouterr().out
    assert main([*words[:2], "--config", written(first, tmp_path), "--dry-run"]) == 0
    assert capsys.readouterr().out == first
