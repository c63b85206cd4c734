"""The two sizes follow from the scores by the published rule, and no width is trained that the rule does not need."""

import json
import math
import shlex
import shutil
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.cli import main
from agents.loop.callbacks import StopWhen
from agents.studies import sizes
from agents.studies.sizes import SizesConfig, run_sizes
from agents.studies.sizing import SizingRule, choose_sizes, search_sizes
from budget_wrappers.errors import ConfigError, NonFiniteError, SpaceError

RULE = SizingRule()


def searched(scores: dict[int, float], random: float = 0.0, rule: SizingRule = RULE) -> tuple[Any, list[int]]:
    """Return the choice and the widths that were trained for it, in order."""
    trained: list[int] = []

    def score_of(width: int) -> float:
        trained.append(width)
        return scores[width]

    found, taken = search_sizes(rule, score_of, random)
    assert list(taken) == trained
    return found, trained


# ---- the rule -------------------------------------------------------------------------------------------------------


def test_published_sizes_of_mountain_car() -> None:
    # Published: 64 units return 93.6 and 8 return −11.6. Those of 16, 32 and 512 are ours: 90 % of 94 is 84.6, a third
    # is 31.3; 64 is the first width above 84.6, and of the widths up to 64/4 = 16 only 8 is below 31.3.
    found, trained = searched({512: 94.0, 8: -11.6, 16: 40.0, 32: 70.0, 64: 93.6})
    assert (found.large, found.small) == (64, 8)
    assert trained == [512, 8, 16, 32, 64]
    assert found.shares[64] == pytest.approx(93.6 / 94)
    assert "the fewest units that reach 90.0 % of the criterion: 99.6 %" in found.large_reason
    assert "at most 33.3 % of the criterion: −12.3 %" in found.small_reason


def test_small_is_the_widest_that_is_poor_enough() -> None:
    # A third of 90 is 30: 16 units are still below it, so they are taken and not 8.
    found, _ = searched({512: 90.0, 8: 0.0, 16: 29.0, 32: 70.0, 64: 90.0})
    assert (found.large, found.small) == (64, 16)


def test_negative_returns_are_measured_from_random_actions() -> None:
    # Shares (R + 1200) / (−150 + 1200): 8 → 300/1050 = 0.29, 16 → 600/1050 = 0.57, 32 → 950/1050 = 0.905.
    found, trained = searched({512: -150.0, 8: -900.0, 16: -600.0, 32: -250.0}, random=-1200.0)
    assert (found.large, found.small) == (32, 8)
    assert trained == [512, 8, 16, 32]
    # As published, from 0, no negative score has a scale.
    assert choose_sizes(RULE, {512: -150.0}, 0.0).large is None


def test_large_is_the_criterion_when_no_width_reaches_it() -> None:
    scores = {512: 100.0, 8: 1.0, 16: 10.0, 32: 20.0, 64: 30.0, 128: 40.0, 256: 89.9}
    found, trained = searched(scores)
    # Up to 512/4 = 128 units: 64 are the widest below a third, 33.3.
    assert (found.large, found.small) == (512, 64)
    assert trained == [512, 8, 16, 32, 64, 128, 256]
    assert "none of 8, 16, 32, 64, 128, 256 units reaches 90.0 %" in found.large_reason


def test_narrowest_is_small_when_all_are_good() -> None:
    found, _ = searched({512: 100.0, 8: 60.0, 16: 50.0, 32: 91.0})
    # Up to 32/4 = 8 units: 8 alone, at 60 %.
    assert (found.large, found.small) == (32, 8)
    assert "good already" in found.small_reason
    assert "60.0 %" in found.small_reason


@pytest.mark.parametrize(
    ("widths", "large", "small"),
    [((16, 32), 16, 4), ((8, 16), 8, 2), ((7,), 7, 1), ((4,), 4, 1)],
)
def test_one_more_width_is_trained_where_none_is_a_quarter(widths: tuple[int, ...], large: int, small: int) -> None:
    scores = {512: 100.0, **dict.fromkeys(widths, 95.0), small: 10.0}
    found, trained = searched(scores, rule=SizingRule(widths=widths))
    assert (found.large, found.small) == (large, small)
    assert trained == [512, large, small]


@pytest.mark.parametrize("large", [1, 2, 3])
def test_nothing_is_smaller_than_one_unit(large: int) -> None:
    found, trained = searched({512: 100.0, large: 95.0}, rule=SizingRule(widths=(large, 8)))
    assert (found.large, found.small) == (large, None)
    assert trained == [512, large]
    assert found.small_reason == f"a quarter of {large} units is less than one"


def test_share_of_exactly_the_bound_reaches_it() -> None:
    # 84.6 is 90 % of 94, and 31.3̅ a third: both are rounded in binary, 84.6/94 to below 0.9.
    assert 84.6 / 94 < 0.9
    found, _ = searched({512: 94.0, 8: 94 / 3, 16: 32.0, 32: 84.6})
    assert (found.large, found.small) == (32, 8)
    assert "good already" not in found.small_reason


def test_equal_scores_take_the_fewest_units_for_large_and_the_most_for_small() -> None:
    found, trained = searched({512: 100.0, 8: 20.0, 16: 20.0, 32: 50.0, 64: 100.0})
    assert (found.large, found.small) == (64, 16)
    assert trained[-1] == 64  # 128 and 256 would return the same


@pytest.mark.parametrize("criterion", [-1200.0, -1300.0])
def test_criterion_that_learned_nothing_ends_the_search(criterion: float) -> None:
    found, trained = searched({512: criterion}, random=-1200.0)
    assert (found.large, found.small, trained) == (None, None, [512])
    assert "train for longer" in found.large_reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_score_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(NonFiniteError, match="the score of 8 units is"):
        choose_sizes(RULE, {512: 1.0, 8: value}, 0.0)
    with pytest.raises(NonFiniteError, match="the score of random actions is"):
        choose_sizes(RULE, {}, value)


def test_widths_are_tried_upwards_whatever_their_order() -> None:
    _, trained = searched({64: 100.0, 4: 1.0, 8: 2.0, 32: 95.0}, rule=SizingRule(64, (32, 8, 4)))
    assert trained == [64, 4, 8, 32]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": 256}, "criterion=256: expected more units than all widths"),
        ({"widths": (8, 16, 8)}, "each once"),
        ({"widths": ()}, "one width at least"),
        ({"widths": (0, 8)}, "at least 1 unit"),
        ({"large_share": 0.0}, "large_share=0.0: expected a share in"),
        ({"large_share": 1.1}, "large_share=1.1: expected a share in"),
        ({"small_share": -0.1}, "small_share=-0.1: expected a share in"),
        ({"small_share": math.nan}, "small_share=nan: expected a finite number"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"steps": 0}, "steps"),
        ({"gamma": 2.0}, "gamma"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SizesConfig("Pendulum-v1", **settings)


# ---- the search with real trainings ---------------------------------------------------------------------------------

WORDS = shlex.split(
    "sizes --env Pendulum-v1 --steps 250 --widths 8 4 --criterion 16 --seeds 0 1 --workers 1 --episodes 1 "
    "--batch-size 8 --learning-starts 200"
)
# Far below every policy, so that each has a share of 1: large is the first width, 4, and small one more, 4//4.
LOW = -1e9
TRAINED = {f"width-{width}-seed{seed}" for width in (16, 4, 1) for seed in (0, 1)}


@pytest.fixture(autouse=True)
def random_actions_are_terrible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "random_return", lambda *_: LOW)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sizes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "random_return", lambda *_: LOW)
        assert main([*WORDS, "--folder", str(folder)]) == 0
    yield folder


def returns(folder: Path) -> dict[int, Any]:
    return {row["width"]: row["return_by_seed"] for row in json.loads((folder / "sizes.json").read_text())["widths"]}


def test_search_leaves_its_trainings_and_its_table(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {"runs", "sizes.json", "sizes.md"}
    assert {path.name for path in (finished / "runs").iterdir()} == TRAINED
    record = json.loads((finished / "sizes.json").read_text())
    assert [(row["width"], row["n"], row["verdict"]) for row in record["widths"]] == [
        (1, 2, "small"),
        (4, 2, "large"),
        (16, 2, "criterion"),
    ]
    # 2·(O·H + H² + 2·H·A) with O = 3, A = 1: 2·(3+1+2), 2·(12+16+8) and 2·(48+256+32).
    assert [row["flops_per_action"] for row in record["widths"]] == [12, 72, 672]
    assert record["choice"]["cost_ratio"] == pytest.approx(72 / 12)
    assert {"command", "versions", "settings", "random_return"} <= record.keys()


def test_second_call_trains_nothing_and_makes_the_table_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "sizes.md").read_text()
    (finished / "sizes.md").unlink()
    monkeypatch.setattr(sizes, "train", None)
    assert main([*WORDS, "--folder", str(finished)]) == 0
    shown = capsys.readouterr().out
    assert (finished / "sizes.md").read_text() == before
    assert before in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("budget ")]
    assert "--env Pendulum-v1 --small-net-arch 1 1 --net-arch 4 4 --steps 250 --batch-size 8" in line
    # What it prints can be run, and trains with the settings of the search.
    assert main([*shlex.split(line)[1:], "--dry-run"]) == 0
    resolved = tomllib.loads(capsys.readouterr().out)
    assert (resolved["small_net_arch"], resolved["net_arch"], resolved["learning_starts"]) == ([1, 1], [4, 4], 200)


def test_interrupted_search_goes_on_to_the_same_numbers(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[int] = []

    def interrupted(self: StopWhen, agent: Any) -> None:
        self.anywhere = False
        started.append(agent.config.net_arch[0])
        if len(started) == 4:
            self.stop(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(StopWhen, "on_training_start", interrupted)
        assert main([*WORDS, "--folder", str(tmp_path)]) == 130
    assert f"Go on with the same options and --folder {tmp_path}" in capsys.readouterr().out
    assert started == [16, 16, 4, 4]
    assert not (tmp_path / "sizes.json").exists()
    resumed: list[int] = []
    train = sizes.train
    monkeypatch.setattr(
        sizes, "train", lambda one, tell: resumed.append(one.settings["net_arch"][0]) or train(one, tell)
    )
    assert main([*WORDS, "--folder", str(tmp_path)]) == 0
    assert resumed == [4, 1, 1]
    assert returns(tmp_path) == returns(finished)


def test_workers_measure_what_one_process_does(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "runs" / "width-4-seed1")
    assert main([*WORDS, "--workers", "2", "--folder", str(tmp_path)]) == 0
    assert returns(tmp_path) == returns(finished)


def test_other_settings_in_the_same_folder_are_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--batch-size", "16"], "batch_size=8: expected 16"),
        (["--steps", "300"], "run.steps=250: expected 300"),
        (["--episodes", "2"], "episodes=1: expected 2"),
    ):
        assert main([*WORDS, *words, "--folder", str(finished)]) == 2
        assert message in (shown := capsys.readouterr().err)
        assert "choose another folder" in shown


def test_criterion_that_learned_nothing_is_said(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sizes, "random_return", lambda *_: 0.0)
    assert main([*WORDS, "--folder", str(finished)]) == 1
    shown = capsys.readouterr().out
    assert "train for longer" in shown
    assert "budget train" not in shown


def test_bad_input_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Nowhere-v0"):
        run_sizes(SizesConfig("Nowhere-v0"), tmp_path)
    with pytest.raises(SpaceError, match="expected a Box"):
        run_sizes(SizesConfig("CartPole-v1"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_preset_of_the_recipe_is_taken_and_handed_on(capsys: pytest.CaptureFixture[str]) -> None:
    from agents.cli.sizes import next_command
    from agents.studies.sizing import Sizes

    assert main(["sizes", "--preset", "mountain-car", "--batch-size", "256", "--dry-run"]) == 0
    resolved = tomllib.loads(capsys.readouterr().out)
    assert (resolved["env"], resolved["correlated_noise"]) == ("MountainCarContinuous-v0", 0.5)
    assert "weight" not in resolved
    config = SizesConfig(**resolved)
    # The preset's batch is 64, its noise, buffer and steps are those asked for.
    assert next_command(config, Sizes({}, None, 64, 8), "mountain-car") == (
        "budget train asymmetric --preset mountain-car --env MountainCarContinuous-v0 --small-net-arch 8 8 "
        "--net-arch 64 64 --batch-size 256"
    )


def test_config_file_may_not_have_what_only_presets_may(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("weight = 0.5\n")
    assert main(["sizes", "--env", "Pendulum-v1", "--config", str(path)]) == 2
    assert "has no key 'weight'" in capsys.readouterr().err
