"""The command line: each verb, its files, its exit codes, and one clean line for whatever is refused."""

import json
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents import cli
from agents.cli import arguments, main
from agents.loop.callbacks import StopWhen
from agents.runs.log import read_rows

TINY = """
env = "Pendulum-v1"
steps = 200
max_episode_steps = 25
net_arch = [8, 8]
batch_size = 16
learning_starts = 20
eval_every = 100
eval_episodes = 1
log_every = 50
checkpoint_every = 50
tensorboard = false
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, config: str) -> Path:
    """Return the folder of a run that ``budget train`` finished."""
    folder = tmp_path_factory.mktemp("runs") / "sac"
    assert main(["train", "sac", "--config", config, "--run", str(folder)]) == 0
    return folder


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which ``words`` are refused."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


class Broken(gym.Wrapper):
    """Drops the seed."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.env.reset()


# ---- the frame ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in cli.VERBS)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from agents.cli import main; main(['--help']);"
        "print([m for m in ('torch', 'gymnasium', 'numpy', 'tyro') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("budget-wrappers ")


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["trian"], capsys) == "budget: error: unknown verb 'trian'; did you mean 'train'?"


def test_interrupt_has_its_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert main(["train"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in ("train", "sweep")])
def test_each_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"budget {verb}" in capsys.readouterr().out


# ---- configuration --------------------------------------------------------------------------------------------------


def test_flags_override_the_file_which_overrides_defaults(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sac", "--config", config, "--steps", "7", "--net-arch", "4", "--dry-run"]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert (shown["steps"], shown["batch_size"], shown["gamma"], shown["net_arch"]) == (7, 16, 0.99, [4])


def test_what_dry_run_prints_is_a_config_that_gives_the_same(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "dqn", "--env", "CartPole-v1", "--learning-rate", "1e-05", "--double", "--dry-run"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "again.toml").write_text(first)
    assert main(["train", "dqn", "--config", str(tmp_path / "again.toml"), "--dry-run"]) == 0
    assert capsys.readouterr().out == first


def test_dry_run_makes_nothing(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "sac", "--config", config, "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate = 1e-3", "has no key 'lerning_rate'; did you mean 'learning_rate'?"),
        ("steps = ", "cannot be read"),
        ("[agent]\ngamma = 0.9", "has no key 'agent'"),
        ("[env]\nid = 'x'", "env is a table: expected a value"),
        ("gamma = 2.0", "gamma=2.0: expected a discount in [0, 1]"),
    ],
)
def test_file_is_checked(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert message in refused(["train", "sac", "--env", "Pendulum-v1", "--config", str(path)], capsys)


def test_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "none.toml' cannot be read" in refused(["train", "sac", "--config", str(tmp_path / "none.toml")], capsys)


def test_unknown_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "sac", "--env", "Pendulum-v1", "--lerning-rate", "1"])
    assert stopped.value.code == 2
    assert "--learning-rate" in capsys.readouterr().err


def test_negative_numbers_and_switches_come_through_a_file() -> None:
    table = {"target_entropy": -3.0, "tensorboard": False, "double": True, "net_arch": [1, 2]}
    flags = ["--target-entropy=-3.0", "--no-tensorboard", "--double", "--net-arch", "1", "2"]
    assert arguments.flags_of(table, list(table), "x") == flags


# ---- train ----------------------------------------------------------------------------------------------------------


def test_train_fills_the_run_folder(run_folder: Path) -> None:
    assert {path.name for path in run_folder.iterdir()} == {
        "best.safetensors",
        "checkpoint.safetensors",
        "config.json",
        "metrics.jsonl",
        "run.json",
        "tradeoff.json",
    }
    assert json.loads((run_folder / "config.json").read_text())["settings"]["batch_size"] == 16
    assert [row["step"] for row in read_rows(run_folder, "training")] == [50, 100, 150, 200]


def test_train_names_the_agents(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    assert "sac, td3, dqn" in capsys.readouterr().out
    assert "there is no agent 'sca'; did you mean 'sac'?" in refused(["train", "sca"], capsys)


def test_train_refuses_a_folder_in_use(config: str, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["train", "sac", "--config", config, "--run", str(run_folder)], capsys)
    assert "holds a run already" in line
    assert f"--resume {run_folder}" in line


def test_interrupted_training_says_how_to_go_on(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"

    def interrupted(self: StopWhen, agent: Any) -> None:
        self.anywhere = False
        self.stop(signal.SIGINT)

    monkeypatch.setattr(StopWhen, "on_training_start", interrupted)
    assert main(["train", "sac", "--config", config, "--run", str(folder)]) == 128 + signal.SIGINT
    assert f"Saved at step 25. Go on with: budget train --resume {folder}" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["train", "--resume", str(folder)]) == 0
    assert f"Resuming {folder} at step 25 of 200" in capsys.readouterr().out


def test_resume_of_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a run folder" in refused(["train", "--resume", str(tmp_path)], capsys)


def test_default_folder_sorts_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.cli.train import default_folder

    monkeypatch.setattr("time.strftime", lambda _: "20260102-030405")
    assert default_folder("sac", "ALE/Pong-v5", 3) == Path("runs/20260102-030405-sac-ALE_Pong-v5-3")


# ---- what comes after -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["last", "best"])
def test_eval_reports_return_and_flops(which: str, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run_folder), "--episodes", "2", "--which", which, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    # Two layers of 8 between 3 observations and twice 1 action: 2·(3·8 + 8·8 + 8·2) FLOPs.
    assert (result["episodes"], result["flops_per_step"]) == (2, 2 * (3 * 8 + 8 * 8 + 8 * 2))
    assert result["lengths"] == [25, 25]


def test_eval_prints_a_table(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run_folder), "--episodes", "1"]) == 0
    shown = capsys.readouterr().out
    assert "SAC in Pendulum-v1: 1 episodes of 25.0 steps" in shown
    assert "FLOPs per step" in shown


def test_eval_of_a_checkpoint_needs_an_environment(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(run_folder / "checkpoint.safetensors")
    assert "env=None" in refused(["eval", checkpoint], capsys)
    assert main(["eval", checkpoint, "--env", "Pendulum-v1", "--episodes", "1"]) == 0


def test_eval_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no file" in refused(["eval", str(tmp_path / "nothing"), "--env", "Pendulum-v1"], capsys)


@pytest.mark.parametrize("verb", ["eval", "profile", "retrofit"])
def test_an_environment_of_other_spaces_is_refused(
    verb: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is for the observation space" in refused([verb, str(run_folder), "--env", "CartPole-v1"], capsys)


def test_foreign_zip_is_opened_when_it_is_trusted_and_only_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = pytest.importorskip("stable_baselines3")
    path = tmp_path / "theirs.zip"
    library.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8, 8]}, buffer_size=10).save(path)
    words = ["eval", str(path), "--env", "Pendulum-v1", "--episodes", "1"]
    assert "can run any code" in refused(words, capsys)
    assert "algorithm='SAKE': expected a class" in refused([*words, "--trust", "--agent", "SAKE"], capsys)
    assert main([*words, "--trust", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flops_per_step"] == 2 * (3 * 8 + 8 * 8 + 8 * 2)


def test_report_compares_runs(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run_folder), "--out", str(tmp_path)]) == 0
    assert {"tradeoff.png", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    assert "SAC" in capsys.readouterr().out


def test_tradeoff_runs_what_its_options_say_and_reports_it(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def run_tradeoff(config: Any, folder: Path, **_: Any) -> list[Path]:
        asked.append(config)
        folder.mkdir()
        shutil.copy(run_folder / "tradeoff.json", folder)
        return [folder]

    monkeypatch.setattr("agents.studies.tradeoff.run_tradeoff", run_tradeoff)
    folder = tmp_path / "compared"
    assert main(["tradeoff", "--env", "Pendulum-v1", "--steps", "300", "--seeds", "4", "--folder", str(folder)]) == 0
    assert (asked[0].steps, asked[0].seeds) == (300, (4,))
    assert f"Picture: {folder / 'tradeoff.png'}" in capsys.readouterr().out


def test_interrupted_tradeoff_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agents.studies.tradeoff.run_tradeoff", interrupted)
    assert main(["tradeoff", "--env", "Pendulum-v1", "--folder", str(tmp_path / "t")]) == 130
    assert f"--folder {tmp_path / 't'}" in capsys.readouterr().out


def test_tradeoff_dry_run_prints_what_it_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text('[settings.bexa-sac]\ngate_loss = "mixture"\n')
    assert main(["tradeoff", "--preset", "demo", "--config", str(tmp_path / "a.toml"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    table = tomllib.loads(printed)
    assert {"env", "steps", "seeds", "weights"} <= table.keys()
    assert table["settings"] == {"bexa-sac": {"gate_loss": "mixture"}}
    (tmp_path / "b.toml").write_text(printed)
    assert main(["tradeoff", "--config", str(tmp_path / "b.toml"), "--dry-run"]) == 0
    assert capsys.readouterr().out == printed


def test_a_file_does_not_have_a_method_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text('env = ["Pendulum-v1"]\nmethods = ["sac", "antigravity:Contender"]\n')
    words = ["tradeoff", "--config", str(tmp_path / "a.toml"), "--dry-run"]
    assert main(words) == 2
    assert "names the method 'antigravity:Contender'" in capsys.readouterr().err
    assert main([*words, "--methods", "sac"]) == 0
    assert main([*words, "--trust"]) == 0


def test_profile_judges_the_control_rate(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["profile", str(run_folder), "--samples", "20"]
    # A period of 100 seconds and one of a nanosecond: no machine is too slow for one or fast enough for the other.
    assert main([*words, "--hz", "0.01", "--out", str(tmp_path / "card.json")]) == 0
    assert main([*words, "--hz", "1e9"]) == 1
    shown = capsys.readouterr().out
    assert "at 0.01 Hz: fits" in shown
    assert "at 1e+09 Hz: does not fit" in shown
    assert json.loads((tmp_path / "card.json").read_text())["flops"] == 208


def test_profile_of_an_untrained_agent(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["profile", "--env", "Pendulum-v1", "--samples", "20", "--net-arch", "8", "8"]
    assert "expected a run's folder, or both" in refused(words, capsys)
    assert main([*words, "--agent", "td3"]) == 0
    # One output instead of two: 2·(3·8 + 8·8 + 8·1).
    assert "192   (matmul convention)" in capsys.readouterr().out


def test_check_passes_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--wrapper", "RecordComputeStatistics"]) == 0
    assert "keeps the contract" in capsys.readouterr().out
    assert main(["check", "RecordComputeStatistics", "--env", "MountainCar-v0"]) == 0
    assert "RecordComputeStatistics over MountainCar-v0 keeps" in capsys.readouterr().out
    assert main(["check", "--wrapper", "tests.agents.test_cli:Broken"]) == 1
    assert "breaks the contract" in capsys.readouterr().out


def test_check_refuses_what_is_no_wrapper(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected module:Class" in refused(["check", "--wrapper", "nowhere:Nothing"], capsys)
    words = ["check", "--wrapper", "ComputePenaltyReward", "--kwargs"]
    assert "is not JSON" in refused([*words, "{weight: 1}"], capsys)
    assert "expected a JSON object" in refused([*words, "[1]"], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ComputePenaltyReward"], "also needs weight"),
        (["ComputePenaltyReward", "--kwargs", '{"wieght": 0.1}'], "no argument 'wieght'; did you mean 'weight'?"),
        (["ComputePenaltyReward", "--kwargs", '{"weight": -1}'], "weight=-1; expected a finite number"),
        (
            ["ComputePenaltyReward", "--kwargs", '{"weight": 1, "floor": "low"}'],
            "floor='low': expected a finite number",
        ),
        (["os:getcwd"], "expected a class derived from gymnasium.Wrapper"),
        (["pathlib:Path"], "expected a class derived from gymnasium.Wrapper"),
        (["tests.agents.test_cli:Broken", "--kwargs", '{"a": 1}'], "takes no argument 'a'; it takes none"),
        ([], "0 wrappers are given []: expected one"),
        (["RecordComputeStatistics", "--wrapper", "ComputeLimit"], "2 wrappers are given"),
    ],
)
def test_check_tells_bad_arguments_from_a_broken_contract(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(["check", *words], capsys)


def test_play_films_an_episode(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filmed: list[Any] = []
    monkeypatch.setattr("agents.cli.play.record_episode", lambda *words: filmed.append(words) or 1.0)
    assert main(["play", str(run_folder), "--video", str(tmp_path), "--episodes", "2"]) == 0
    assert [(words[1].render_mode, words[2].name, words[3]) for words in filmed] == [
        ("rgb_array", "episode-0.gif", 20_000),
        ("rgb_array", "episode-1.gif", 20_001),
    ]
