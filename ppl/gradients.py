"""`check_gradients` and `benchmark_gradients` of models: the log density that samplers see, site by site."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ad.adtypes import AbstractADType, AbstractBackend
from ..ad.measuring import benchmarking, checking
from ..ad.measuring.results import GradientBenchmark
from ..ad.measuring.usual import chosen_adtypes
from ..ad.measuring.verdicts import GradientCheck, Verdict
from ..ad.scenarios.scenario import Scenario
from .checks import check_given, check_sampleable
from .initialization import ATTEMPTS, RADIUS, check_initial_values
from .interpreters import discover, unconstrain
from .log_density import TracedModel, trace_model
from .model import BoundModel, Model

# A derivative can be zero or lucky at one point; hardly at three drawn ones.
_POINTS = 3


def check_gradients(
    what: BoundModel | Callable[..., Any],
    x: Any = None,
    *constants: Any,
    adtypes: AbstractADType | Sequence[AbstractADType] | None = None,
) -> GradientCheck:
    """Compare every mode with finite differences, print the table and return it.

    Of a model, it is the unconstrained log density that is differentiated, in 64-bit numbers, with a row for each
    latent site and mode: where the derivative is worst among three points drawn from Uniform(−2, 2). Terms whose
    gradient is not finite, or zero although they are computed from a site, are named.

    Args:
        what: a model with its data, or a function `f(x, *constants)`.
        x: for a model, values of some latent sites in their supports, or None; for a function, the point.
        constants: further arguments of a function.
        adtypes: one mode or several; None means `AutoForward()` and `AutoReverse()`.

    Returns:
        A `GradientCheck`; raise on `not check.ok` where a script should stop.

    Raises:
        TypeError: on what is neither, or a function without a point.
        ValueError: where the value is not finite, or values of sites do not fit.

    Example:
        `assert check_gradients(schools(y, sigma)).ok`
    """
    _check_arguments("check_gradients", what, x, constants)
    if not isinstance(what, BoundModel):
        return checking.check_gradients(what, x, *constants, adtypes=adtypes)
    modes = chosen_adtypes(adtypes, checking.DEFAULT_ADTYPES, "check_gradients")
    with jax.enable_x64(True):
        target = _Target.of(what, x)
        check = checking.examine_gradients(
            target.log_density,
            [tuple(target.traced.density.coordinates.split(point)) for point in target.points],
            *target.traced.data,
            adtypes=modes,
            labels=target.traced.density.sites,
            subject=f"the log density of {what.name}",
        )
        check = dataclasses.replace(check, notes=(*check.notes, *target.notes_by_term(modes, check)))
    print(check)
    return check


def benchmark_gradients(
    what: Any, x: Any = None, *constants: Any, adtypes: AbstractADType | Sequence[AbstractADType] | None = None
) -> GradientBenchmark:
    """Time every backend inside a compiled loop, print the table and return it.

    Args:
        what: a model with its data, whose unconstrained log density is differentiated in 64-bit numbers; a function
            `f(x, *constants)`; or gradient scenarios.
        x: for a model, values of some latent sites in their supports, or None; for a function, the point.
        constants: further arguments of a function.
        adtypes: one adtype or several to compare; None means the usual backends.

    Returns:
        A `GradientBenchmark`, with `plot(path)` for the picture.

    Raises:
        TypeError: on what is neither, or a function without a point.
        ValueError: where the value is not finite, or values of sites do not fit.
    """
    if isinstance(what, (Scenario, list, tuple)):
        return benchmarking.benchmark_gradients(what, adtypes=adtypes)
    _check_arguments("benchmark_gradients", what, x, constants)
    if not isinstance(what, BoundModel):
        return benchmarking.benchmark_gradients(what, x, *constants, adtypes=adtypes)
    with jax.enable_x64(True):
        target = _Target.of(what, x)
        whole = target.traced.density.restrict(target.traced.density.sites)
        point, elsewhere = target.points[0], target.points[-1]
        given = tuple(whole.constants(jnp.asarray(point), whole.prepare(target.traced.data)))
        scenario = Scenario(what.name, "model", whole.target.log_density, point, elsewhere, "", given)
        return benchmarking.benchmark_gradients(scenario, adtypes=adtypes)


def _check_arguments(caller: str, what: object, x: Any, constants: tuple[Any, ...]) -> None:
    if isinstance(what, Model):
        raise TypeError(f"{caller}: '{what.name}' has no data yet; call it first: {caller}({what.name}(...)).")
    if not isinstance(what, BoundModel):
        if not callable(what) or x is None:
            raise TypeError(
                f"{caller}: expected a model with its data, or a function and a point, got {what!r}; "
                f"write {caller}(model(data)) or {caller}(f, x)."
            )
    elif constants or not (x is None or isinstance(x, Mapping)):
        raise TypeError(f"{caller}: for a model, x is a dict from site names to values, and there are no constants.")


@dataclass(frozen=True)
class _Target:
    """A traced model and some unconstrained points, shape (dimension,), at which its log density is finite."""

    traced: TracedModel
    points: list[np.ndarray[Any, Any]]

    @classmethod
    def of(cls, model: BoundModel, values: Mapping[str, Any] | None) -> _Target:
        found = discover(model, check_given)
        check_sampleable(found, model.name)
        given = check_initial_values(model, values, found, 1)[0]
        traced = trace_model(model, found)
        coordinates = traced.density.coordinates
        density = jax.jit(traced.density.log_density)
        rng = np.random.default_rng(0)
        point = np.zeros(coordinates.dimension)
        points: list[np.ndarray[Any, Any]] = []
        everything_given = given.keys() >= coordinates.shapes.keys()
        for _ in range(1 if everything_given else ATTEMPTS):
            point = rng.uniform(-RADIUS, RADIUS, coordinates.dimension)
            if given:
                parts = dict(zip(coordinates.shapes, coordinates.split(point), strict=True))
                parts |= unconstrain(model, given, parts)
                point = np.asarray(coordinates.join(list(parts.values())))
            if np.isfinite(density(point, *traced.data)):
                points.append(point)
            if len(points) == _POINTS:
                break
        if not points:
            terms = traced.density.by_term(point, *traced.data)
            raise ValueError(
                f"the log density of {model.name} is not finite at "
                f"{'the given values' if everything_given else f'any of {ATTEMPTS} points drawn for it'}: "
                f"{', '.join(f'{name} {float(term):.4g}' for name, term in terms.items())} at the last. Give values "
                f"of its sites where it is, as in x={{'{next(iter(coordinates.shapes))}': ...}}."
            )
        return cls(traced, points)

    def log_density(self, parts: Sequence[Any], *data: Any) -> jax.Array:
        """The log density from the unconstrained arrays of the sites."""
        return self.traced.density.log_density(self.traced.density.coordinates.join(parts), *data)

    def notes_by_term(self, adtypes: Sequence[AbstractADType], check: GradientCheck) -> list[str]:
        """Which terms are behind a derivative that is not finite, and which are computed from a site in vain."""
        density = self.traced.density
        sources = [[density.sites[j] for j in sorted(found)] for found in self._sources()]
        notes, vain = [], dict[tuple[str, str], None]()
        for adtype in adtypes:
            jacobian = self._by_term(adtype)
            if jacobian is None:
                continue
            name = repr(adtype)
            broken = {row.label for row in check.rows if row.adtype == name and row.verdict is Verdict.NOT_FINITE}
            for site, stretch in density.coordinates.slices.items():
                part = {term: jacobian[:, i, stretch] for i, term in enumerate(density.terms) if site in sources[i]}
                bad = [f"'{term}'" for term, slopes in part.items() if not np.isfinite(slopes).all()]
                if site in broken and bad:
                    notes.append(f"{name}: what is not finite with respect to '{site}' is in {_listed('term', bad)}.")
                # The prior of a site may well be flat in it.
                own = (site, f"log|J| {site}")
                vain |= {(term, site): None for term, slopes in part.items() if term not in own and not slopes.any()}
        notes += [
            f"Term '{term}' is computed from '{site}', yet its gradient with respect to '{site}' is zero at every "
            f"point: look for a stop_gradient, a comparison, a rounding or a conversion to integers."
            for term, site in vain
        ]
        return notes

    def _sources(self) -> list[set[int]]:
        """The sites, by number, that each term is computed from."""
        count = len(self.traced.density.sites)
        dependencies = self.traced.density.program.dependencies()
        return [{i for i in dependencies[output] if i < count} for output in self.traced.density.terms.values()]

    def _by_term(self, adtype: AbstractADType) -> np.ndarray[Any, Any] | None:
        """The Jacobian of the terms, shape (points, terms, dimension); None where the adtype has none to show."""
        if not isinstance(adtype, AbstractBackend) or not adtype.traced:
            return None
        density, data = self.traced.density, self.traced.data

        # Each term by itself: pulled back together, a NaN of one would reach all, as 0 · NaN.
        def slopes(number: int, position: jax.Array) -> jax.Array:
            program = density.program.select([list(density.terms.values())[number]])
            row: jax.Array = adtype.jacobian(lambda q: program(*density.coordinates.split(q), *data)[0], position)[1]
            return row

        try:
            jacobian = jax.jit(lambda q: jnp.stack([slopes(i, q) for i in range(len(density.terms))]))
            return np.array([jacobian(jnp.asarray(point)) for point in self.points])
        except Exception:  # refused: the check says so already, with the reason
            return None


def _listed(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' * (len(names) > 1)} {', '.join(names)}"
