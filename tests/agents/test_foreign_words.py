"""Files of strangers are data: no value of one becomes a flag, and no module is imported because a file names it."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agents import DQN, SAC
from agents.cli import arguments, main
from agents.cli.train import form_for
from agents.loop.checkpoint import save_agent
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.run import Run
from budget_wrappers.errors import ConfigError, UntrustedFileError
from tests.agents.small import make_agent

MODULE = "payload_of_a_stranger"


def attempt(words: list[str]) -> Any:
    """Return the exit code of a command line, or what it raised."""
    try:
        return main(words)
    except (SystemExit, Exception) as error:  # noqa: BLE001  whatever it is, the assertions follow
        return error


# ---- values that look like flags ------------------------------------------------------------------------------------


def parsed(agent: type, text: str, folder: Path, *words: str) -> Any:
    """Return the options of ``budget train`` with a file of this text."""
    path = folder / "strange.toml"
    path.write_text(text)
    return arguments.parse(form_for(agent), ["--env", "CartPole-v1", "--config", str(path), *words], "budget train")


@pytest.mark.parametrize(
    "text",
    [
        'sub_policies = ["a.zip", "b.zip", "--trust"]',
        'sub_policies = ["--trust"]',
        'sub_policies = ["a.zip", "--trust=True"]',
        'net_arch = [8, "--trust"]',
        'sub_policies = ["a.zip", "b.zip", "--run", "elsewhere"]',
        'sub_policies = ["a.zip", "b.zip", "--run=elsewhere"]',
        'sub_policies = ["a.zip", "b.zip", "-h"]',
        'sub_policies = [["a.zip", "--trust"], "b.zip"]',
        'run = "elsewhere"',
        'folder = "elsewhere"',
        "dry_run = true",
        "trust = true",
        "tensorboard = 'no'",
        "steps = 'many'",
        "steps = 400.5",
        "env = true",
    ],
)
def test_a_file_grants_nothing_and_is_typed(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"strange\.toml"):
        parsed(DQN, text, tmp_path)


def test_a_text_that_looks_like_a_flag_stays_the_value_of_its_key(tmp_path: Path) -> None:
    options = parsed(DQN, 'dataset = "--trust"\nactivation = "tanh"', tmp_path)
    assert (options.setup.dataset, options.trust, options.agent.activation) == ("--trust", False, "tanh")


def test_flags_of_the_command_line_keep_their_meaning_beside_a_file(tmp_path: Path) -> None:
    options = parsed(DQN, 'sub_policies = ["a", "b"]\nnet_arch = 8', tmp_path, "--trust", "--run", "mine")
    assert (options.trust, options.run, options.setup.sub_policies) == (True, Path("mine"), ("a", "b"))
    assert options.agent.net_arch == (8,)


@pytest.mark.parametrize(
    "verb", [["tradeoff", "--env", "A"], ["sizes", "--env", "Pendulum-v1"], ["sweep", "bexa-sac", "--env", "A"]]
)
def test_a_study_is_not_told_by_a_file_where_to_write(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange.toml").write_text('seeds = [0, "--run=elsewhere"]')
    assert attempt([*verb, "--config", "strange.toml", "--dry-run"]) == 2
    (tmp_path / "strange.toml").write_text('run = "elsewhere"')
    assert attempt([*verb, "--config", "strange.toml", "--dry-run"]) == 2


def test_a_cluster_is_named_by_the_command_line_alone(tmp_path: Path) -> None:
    (tmp_path / "strange.toml").write_text('ray = "stranger:6379"')
    words = ["sweep", "bexa-sac", "--env", "Pendulum-v1", "--config", str(tmp_path / "strange.toml"), "--dry-run"]
    assert attempt(words) == 2


# ---- modules --------------------------------------------------------------------------------------------------------


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a module on Python's path whose import leaves the file that is returned."""
    marker, home = tmp_path / "payload ran", tmp_path / "modules"
    home.mkdir()
    (home / f"{MODULE}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(home)
    monkeypatch.delitem(__import__("sys").modules, MODULE, raising=False)
    return marker


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder as a stranger would make it by hand: an untrained agent and its configuration."""
    folder = tmp_path_factory.mktemp("runs") / "sound"
    agent = make_agent("sac")
    run = {"env": "Pendulum-v1", "steps": 50, "eval_every": 0, "tensorboard": False, "max_episode_steps": 25}
    extra = {"callbacks": {}, "metrics_bytes": 0}
    for name in ("checkpoint", "best"):
        save_agent(agent, folder / f"{name}.safetensors", extra=extra)
    record = {"agent": "SAC", "settings": agent.config.to_dict(), "run": run}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "run.json").write_text(json.dumps({"command": "budget train", "versions": {}, "commit": None}))
    (folder / "metrics.jsonl").touch()
    return folder


@pytest.fixture
def foreign(sound: Path, tmp_path: Path) -> Path:
    """Return a copy whose environment names the payload."""
    folder = tmp_path / "foreign"
    shutil.copytree(sound, folder)
    config = json.loads((folder / "config.json").read_text())
    config["run"]["env"] = f"{MODULE}:Pendulum-v1"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "verb",
    [
        ["eval", "FOREIGN", "--episodes", "1"],
        ["eval", "FOREIGN", "--which", "best", "--episodes", "1"],
        ["profile", "FOREIGN", "--samples", "2"],
        ["play", "FOREIGN", "--video", "films"],
        ["retrofit", "FOREIGN", "--steps", "2", "--rounds", "1", "--updates", "1", "--episodes", "1"],
        ["train", "--resume", "FOREIGN"],
        ["train", "--resume", "FOREIGN", "--steps", "60"],
    ],
    ids=lambda words: "-".join(words[:3:2]),
)
def test_a_run_folder_has_no_module_imported(
    verb: list[str], foreign: Path, payload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(foreign.parent)
    code = attempt([str(foreign) if word == "FOREIGN" else word for word in verb])
    assert not payload.exists()
    assert code == 2


def test_the_library_asks_for_trust_too(foreign: Path, payload: Path) -> None:
    with contextlib.suppress(UntrustedFileError), Run.resume(SAC, foreign):
        pass
    assert not payload.exists()


def test_a_configuration_file_has_no_module_imported(payload: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.toml"
    path.write_text(f'env = "{MODULE}:Pendulum-v1"\nsteps = 30\n')
    for verb in (["train", "sac"], ["tradeoff"], ["sizes"], ["sweep", "bexa-sac"]):
        code = attempt([*verb, "--config", str(path), "--run", str(tmp_path / "run")])
        assert not payload.exists()
        assert code == 2


def test_a_comparison_has_no_module_imported(payload: Path, tmp_path: Path) -> None:
    Comparison(f"{MODULE}:Pendulum-v1", [TradeoffPoint("m", "m", 0, 1.0, 2.0)]).write(tmp_path)
    assert attempt(["report", str(tmp_path)]) == 0
    assert not payload.exists()


def test_the_user_may_name_the_module_or_trust_the_folder(
    foreign: Path, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(foreign), "--episodes", "1", "--env", f"{MODULE}:Pendulum-v1"]) == 0
    assert payload.exists()
    assert main(["eval", str(foreign), "--episodes", "1", "--trust"]) == 0
    capsys.readouterr()


def test_the_packages_own_environments_need_no_trust(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((foreign / "config.json").read_text())
    config["run"]["env"] = "agents.studies.environments:Pendulum-v1"
    (foreign / "config.json").write_text(json.dumps(config))
    assert main(["eval", str(foreign), "--episodes", "1"]) == 0
    capsys.readouterr()
