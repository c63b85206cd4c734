"""The published asymmetric study, as presets: settings, sizes and cost ratios."""

import subprocess
import sys
import tomllib

import gymnasium as gym
import pytest

from agents.cli import main
from agents.runs.run_config import RunConfig
from agents.studies.names import PRESETS, presets_of
from benchmarks.asymmetric.costs import PUBLISHED_RATIO, SIZES, costs_of, settings_of

TASKS = tuple(SIZES)


def env_of(task: str) -> str:
    return tomllib.loads((PRESETS / "asymmetric" / f"{task}.toml").read_text())["env"]


def test_every_task_has_a_preset() -> None:
    assert presets_of("asymmetric") == sorted(TASKS)


@pytest.mark.parametrize(
    ("task", "small", "large", "weight"),
    [
        ("mountain-car", 8, 64, 1e-4),
        ("swimmer", 8, 256, 1e-4),
        ("ant", 64, 256, 1e-1),
        ("fetch", 32, 128, 2e-4),
        ("walker-stand", 8, 64, 1e-2),
        ("finger-spin", 8, 64, 1e-2),
    ],
)
def test_widths_and_prices_are_the_published_ones(task: str, small: int, large: int, weight: float) -> None:
    config = settings_of(task)
    assert (config.small_net_arch, config.net_arch, config.weight) == ((small, small), (large, large), weight)
    assert (config.hold, config.gamma, config.activation) == (5, 0.99, "tanh")


@pytest.mark.parametrize("task", TASKS)
def test_published_ratio_follows_from_the_networks(task: str) -> None:
    assert round(costs_of(task)["published_rule"], 1) == PUBLISHED_RATIO[task]


def test_golden_flops_of_mountain_car_and_walker_stand() -> None:
    # 2·(O·H + H·H + 2·H·A): 2·(2·64 + 64² + 2·64) = 8,704 and 2·(24·64 + 64² + 2·64·6) = 12,800
    assert costs_of("mountain-car")["matmul"]["large"] == 8_704
    assert costs_of("walker-stand")["matmul"]["large"] == 12_800
    # 2·(2·8 + 8² + 2·8) = 192, and 2·(2·32 + 32² + 32·2) = 2,304 for the master's two values
    assert (costs_of("mountain-car")["matmul"]["small"], costs_of("mountain-car")["matmul"]["master"]) == (192, 2_304)


@pytest.mark.parametrize("task", TASKS)
def test_sizes_are_those_of_the_environment(task: str) -> None:
    extra = {"fetch": "gymnasium_robotics", "walker-stand": "dm_control", "finger-spin": "dm_control"}.get(task)
    if extra:
        pytest.importorskip(extra)
    # In a process of its own: these packages warn on import, and warnings are errors here.
    code = (
        "import sys, gymnasium as gym\n"
        "from gymnasium.spaces import flatdim\n"
        "env = gym.make(sys.argv[1]); print(flatdim(env.observation_space), env.action_space.shape[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, env_of(task)], capture_output=True, text=True, check=True)
    assert tuple(map(int, done.stdout.split())) == SIZES[task]


def test_ant_with_contact_forces_makes_no_noise() -> None:
    env = gym.make(env_of("ant"))
    assert env.observation_space.shape == (111,)
    env.close()


def test_fetch_can_end_on_success() -> None:
    pytest.importorskip("gymnasium_robotics")
    # In a process of its own, as above. An object that is put onto its goal is a success at the next step.
    code = (
        "import gymnasium as gym\n"
        "env = gym.make('agents.studies.environments:budget/FetchPickAndPlaceUntilSuccess-v0')\n"
        "env.reset(seed=0); still = env.action_space.sample() * 0\n"
        "_, reward, terminated, _, info = env.step(still); print(terminated, float(info['is_success']), reward)\n"
        "env.unwrapped.goal = env.unwrapped._get_obs()['achieved_goal'].copy()\n"
        "_, reward, terminated, _, info = env.step(still); print(terminated, float(info['is_success']), reward)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False 0.0 -1.0", "True 1.0 -0.0"]


def test_preset_is_read_first_then_the_file_then_flags(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("weight = 0.5\nhold = 3\n")
    words = ["train", "asymmetric", "--preset", "mountain-car", "--config", str(file), "--hold", "7", "--dry-run"]
    assert main(words) == 0
    resolved = tomllib.loads(capsys.readouterr().out)
    assert (resolved["correlated_noise"], resolved["weight"], resolved["hold"]) == (0.5, 0.5, 7)
    assert resolved["env"] == "MountainCarContinuous-v0"


@pytest.mark.parametrize(
    ("agent", "message"), [("asymmetric", "did you mean 'mountain-car'"), ("sac", "it has none at all")]
)
def test_unknown_preset_is_refused(agent: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", agent, "--preset", "mountain"]) != 0
    assert message in capsys.readouterr().err


def test_presets_are_runs_that_can_be_made() -> None:
    for task in TASKS:
        table = tomllib.loads((PRESETS / "asymmetric" / f"{task}.toml").read_text())
        assert RunConfig.of({key: table[key] for key in ("env", "steps")}).steps in (100_000, 2_500_000)
