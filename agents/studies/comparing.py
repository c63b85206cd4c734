"""Who takes part in a comparison in one environment: the entrants of every word of ``--methods``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.config import require
from agents.studies.contender import Contender
from agents.studies.entrants import Entrant, TrainedEntrant
from agents.studies.names import slug
from agents.studies.resolving import Recipe
from agents.studies.retrofitted import TakenPolicy
from agents.studies.spec import MethodSpec
from budget_wrappers.errors import ConfigError


@dataclass(frozen=True)
class Field:
    """Everybody who takes part in one environment.

    Attributes:
        specs: the words of ``--methods``.
        env: a Gymnasium id.
        run: settings of ``RunConfig`` of every training.
        common: settings of all agents that have the key.
        own: further settings of methods, by name.
        budgets, weights, seeds: what is gone through.
        episodes: of each final evaluation.
        folder: of the study in this environment.
        trust: whether files may run code when they are loaded.
    """

    specs: Sequence[MethodSpec]
    env: str
    run: Mapping[str, Any]
    common: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    budgets: Sequence[float] = ()
    weights: Sequence[float] = ()
    seeds: Sequence[int] = (0,)
    episodes: int = 20
    folder: str = "."
    trust: bool = False

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.specs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(
                f"methods: {twice!r} stands there twice: expected a name for each; write NAME={twice}… for one of them"
            )
        if unknown := sorted(self.own.keys() - set(names)):
            raise ConfigError(f"settings of {', '.join(unknown)}: expected names of methods, {', '.join(names)}")
        if of_controls := sorted(spec.name for spec in self.specs if spec.control and self.own.get(spec.name)):
            raise ConfigError(
                f"settings of {', '.join(of_controls)}: expected none, as controls have those of the methods beside "
                "them; put them under a method's name"
            )
        require(any(not spec.control for spec in self.specs), "methods", tuple(names), "a method besides the controls")

    # ---- what is trained --------------------------------------------------------------------------------------------

    @property
    def choosers(self) -> tuple[str, ...]:
        """The controls that choose in the place of each method that chooses."""
        return tuple(spec.agent for spec in self.specs if spec.kind == "chooser")

    @property
    def fits(self) -> bool:
        """Whether a plain network of equal FLOPs is trained beside each method."""
        return any(spec.kind == "fit" for spec in self.specs)

    @property
    def students(self) -> tuple[tuple[int, ...], ...]:
        """Widths of the students that are taught beside each retrofit, those of the dense controls."""
        retrofits = any(spec.kind == "retrofit" for spec in self.specs)
        return tuple(spec.widths for spec in self.specs if spec.kind == "dense") if retrofits else ()

    def recipe(self, spec: MethodSpec) -> Recipe:
        """Return what ``spec`` trains."""
        return Recipe.of(spec, self.common, self.own.get(spec.name, {}), int(self.run["steps"]))

    def trained(self) -> list[tuple[MethodSpec, Recipe]]:
        """Return the agents that are trained, controls not among them."""
        return [(spec, self.recipe(spec)) for spec in self.specs if spec.kind == "agent"]

    def reference(self) -> Recipe:
        """Return the first agent, whose plain form the dense controls are, with its widths for their critics.

        Raises:
            ConfigError: there is none.
        """
        trained = self.trained()
        if not trained:
            raise ConfigError(
                "methods: dense: expected an agent among the methods, whose plain form it is, or a retrofit, whose "
                "student it is; add one, such as sac"
            )
        return trained[0][1]

    def entrants(self) -> list[Entrant]:
        """Return everybody whose work follows from the words alone; those of dear methods come first."""
        found: list[Entrant] = []
        for spec in self.specs:
            found += self._of(spec)
        names = [one.name for one in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"methods: two would train in runs/{twice}: expected names that differ; write NAME=…")
        return found

    def _of(self, spec: MethodSpec) -> Iterator[Entrant]:
        if spec.kind == "agent":
            recipe = self.recipe(spec)
            for budget, weight in self._prices(spec, recipe):
                for seed in self.seeds:
                    yield self._training(spec, recipe, seed, budget, weight)
        elif spec.kind == "dense" and self.students and not self.trained():
            pass  # students of retrofits
        elif spec.kind == "dense":
            yield from self._dense_control(spec)[1]
        elif spec.kind == "contender":
            yield from self._contenders(spec)
        elif spec.kind in ("policy", "retrofit"):
            yield from self._taken(spec)

    def dense_controls(self) -> list[tuple[Recipe, tuple[TrainedEntrant, ...]]]:
        """Return the plain agents of given widths that are trained, each with its entrants, one a seed."""
        return [self._dense_control(spec) for spec in self.specs if spec.kind == "dense" and self.trained()]

    def _dense_control(self, spec: MethodSpec) -> tuple[Recipe, tuple[TrainedEntrant, ...]]:
        layers = len(self.reference().get("net_arch"))
        # One number stands for as many layers as the method has.
        recipe = self.dense(spec.widths * layers if len(spec.widths) == 1 else spec.widths)
        facts = {"control": "dense", "what": f"plain {recipe.agent} whose actor has {widths_in_words(recipe)}"}
        return recipe, tuple(
            self.entrant(spec.name, spec.name, recipe, seed, facts, baseline=True) for seed in self.seeds
        )

    def _prices(self, spec: MethodSpec, recipe: Recipe) -> list[tuple[float | None, float | None]]:
        """Return the budgets and weights of an agent, ``None`` where it has no such key or its word sets it."""
        given = {**self.own.get(spec.name, {}), **spec.settings}
        gone = {
            key: key in recipe.priced and not any(k.rpartition(".")[2] == key for k in given)
            for key in ("budget", "weight")
        }
        budgets = self.budgets if gone["budget"] else [None]
        weights = self.weights if gone["weight"] else [None]
        for key, values in (("budgets", budgets), ("weights", weights)):
            require(len(values) > 0, key, tuple(values), f"one at least, as {spec.name} has one")
        return [(budget, weight) for budget in budgets for weight in weights]

    def _training(
        self, spec: MethodSpec, recipe: Recipe, seed: int, budget: float | None, weight: float | None
    ) -> TrainedEntrant:
        words, facts = [spec.name], {}
        for key, symbol, value in (("budget", "b", budget), ("weight", "λ", weight)):
            if value is not None:
                recipe = recipe.with_(key, value)
                words.append(f"{symbol} = {value:g}")
                facts[key] = value
            elif key in recipe.priced:
                facts[key] = recipe.get(key)
        plain = recipe.agent == recipe.plain and not recipe.methods
        facts["what"] = spec.word
        require(bool(self.budgets) or not recipe.conditioned, "budgets", (), f"one at least, as {spec.name} reads one")
        budgets = tuple(self.budgets) if recipe.conditioned else ()
        choosers = self.choosers if recipe.chooses else ()
        return self.entrant(spec.name, ", ".join(words), recipe, seed, facts, plain, budgets, choosers)

    def entrant(
        self,
        method: str,
        label: str,
        recipe: Recipe,
        seed: int,
        facts: Mapping[str, Any],
        baseline: bool = False,
        budgets: tuple[float, ...] = (),
        choosers: tuple[str, ...] = (),
        folder: str = "",
    ) -> TrainedEntrant:
        """Return the training of ``recipe`` with one seed.

        Args:
            method: see ``TrainedEntrant``, as for label, facts, baseline, budgets and choosers.
            label: of its row.
            recipe: of the agent.
            seed: of the training.
            facts: extras of its points.
            baseline: whether it is there to be compared with.
            budgets: at which it is evaluated.
            choosers: controls that choose in its place.
            folder: what the name of its run folder begins with, by default its label.
        """
        run = {**self.run, "env": self.env} | ({"budget_input": True} if recipe.conditioned else {})
        return TrainedEntrant(
            agent=recipe.agent_class.__name__,
            name=f"{slug(folder or label)}-seed{seed}",
            folder=self.folder,
            run=run,
            settings={**recipe.settings, "seed": seed},
            episodes=self.episodes,
            methods=recipe.records,
            method=method,
            label=label,
            baseline=baseline,
            facts=dict(facts),
            budgets=budgets,
            choosers=choosers,
        )

    def _contenders(self, spec: MethodSpec) -> Iterator[Entrant]:
        settings = {**self.own.get(spec.name, {}), **spec.settings}
        for budget in self.budgets or [None]:
            label = spec.name if budget is None else f"{spec.name}, b = {budget:g}"
            facts = {"what": spec.target} | ({} if budget is None else {"budget": budget})
            for seed in self.seeds:
                yield Contender(
                    spec.target,
                    f"{slug(label)}-seed{seed}",
                    self.folder,
                    {**self.run, "env": self.env},
                    seed,
                    budget,
                    self.episodes,
                    spec.name,
                    label,
                    facts,
                    settings,
                )

    def _taken(self, spec: MethodSpec) -> Iterator[Entrant]:
        retrofits = spec.kind == "retrofit"
        require(bool(self.budgets) or not retrofits, "budgets", (), f"one at least, as {spec.name} is taught each")
        for number, seed in enumerate(self.seeds if retrofits else self.seeds[:1]):
            yield TakenPolicy(
                spec.target,
                f"{slug(spec.name)}-seed{seed}" if retrofits else slug(spec.name),
                self.folder,
                {**self.run, "env": self.env},
                seed,
                tuple(self.budgets) if retrofits else (),
                self.episodes,
                self.trust,
                spec.name,
                spec.name,
                {"what": spec.word},
                self.choosers,
                self.fits and retrofits,
                self.students if retrofits else (),
                number == 0,
                {**self.own.get(spec.name, {}), **spec.settings},
            )

    # ---- controls of equal FLOPs ------------------------------------------------------------------------------------

    def dense(self, widths: Sequence[int], beside: Recipe | None = None) -> Recipe:
        """Return the plain agent whose actor has ``widths``; its critics keep the method's own.

        Args:
            widths: of the actor.
            beside: the method, by default the first one.
        """
        of = beside or self.reference()
        own = tuple(of.get("net_arch"))
        keys = [key for key in Recipe(of.plain).keys if key not in ("budget", "weight")]
        settings = {key: value for key, value in of.settings.items() if key in keys} | {"net_arch": tuple(widths)}
        if "critic_net_arch" in keys:
            settings["critic_net_arch"] = tuple(of.get("critic_net_arch") or own)
        recipe = Recipe(of.plain, settings)
        recipe.check()
        return recipe


def widths_in_words(recipe: Recipe) -> str:
    """Return what acts, as a reader takes it: ``16×16 units``."""
    widths = recipe.settings["net_arch"]
    return f"{'×'.join(map(str, widths))} units" if widths else "no hidden layer"


def folder_of(base: Path, env_id: str, alone: bool) -> Path:
    """Return where the comparison in one environment is kept: a folder of its own where there are several."""
    return base if alone else base / slug(env_id)
