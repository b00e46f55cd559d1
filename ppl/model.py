"""Models as values: a decorated function, and that function with data, conditions and interventions bound."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .inputs import as_data
from .interpreter import AbstractInterpreter, interpreting

if TYPE_CHECKING:
    from .describe.summary import ModelSummary
    from .plans.graph import Graph

Values = Mapping[str, Any]


class Model:
    """A function that declares random variables. Calling it with data gives a `BoundModel`.

    Made by the decorator `model`.

    Args:
        function: plain Python on `jax.numpy`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.signature = inspect.signature(function)
        functools.update_wrapper(self, function)

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.function, "__name__", "model")

    def __call__(self, *args: Any, **kwargs: Any) -> BoundModel:
        """Bind data.

        Columns of pandas and polars, arrays of xarray and lists of numbers become NumPy arrays; a data frame becomes a
        table whose columns are such.

        Raises:
            TypeError: if an argument is missing or unknown; it names those that the model takes.
        """
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"model '{self.name}{self.signature}': {error}.") from None
        return BoundModel(self, tuple(map(as_data, args)), {name: as_data(value) for name, value in kwargs.items()})

    def __or__(self, _: object) -> BoundModel:
        """A model without data cannot be conditioned."""
        raise TypeError(f"'{self.name}' has no data yet; call it first: {self.name}(...) | {{...}}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the name under which the decorated function stands in its module."""
        return _find, (self.function.__module__, self.function.__qualname__)

    def __repr__(self) -> str:
        """Name and arguments."""
        return f"Model({self.name}{self.signature})"


def _find(module: str, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def model(function: Callable[..., Any]) -> Model:
    """Turn a function into a model.

    Args:
        function: plain Python on `jax.numpy` that declares its random variables with `rv`. Its arguments are data.

    Returns:
        A `Model`; call it with data to get something that can be sampled.

    Example:
        `@model` above `def coin(flips): p = rv("p", dist.Beta(1, 1)); rv("y", dist.Bernoulli(p), obs=flips)`
    """
    if not callable(function):
        raise TypeError(f"@model decorates a function, got {function!r}.")
    return Model(function)


@dataclass(frozen=True, eq=False)
class BoundModel:
    """A model with its data: what is sampled.

    Args:
        model: the function.
        args, kwargs: its data.
        conditions: observed values by site, over those in the function.
        latents: sites to be treated as latent although the function observes them.
        interventions: values by site that replace the site and its term altogether (Pearl's do).
        marginalized: discrete sites that are to be summed out.
        initial: values by site where chains start unless `init=` says otherwise.
    """

    model: Model
    args: tuple[Any, ...]
    kwargs: Values
    conditions: Values = field(default_factory=dict)
    latents: frozenset[str] = frozenset()
    interventions: Values = field(default_factory=dict)
    marginalized: frozenset[str] = frozenset()
    initial: Values = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.model.name

    def condition(self, values: Values | None = None, /, **named: Any) -> BoundModel:
        """Observe sites: their values are given and their terms stay in the log density. The last call wins.

        Args:
            values: observed values by site.
            named: the same, as keywords.

        Returns:
            A new model.
        """
        given = _merge("condition", values, named)
        return replace(
            self,
            conditions={**self.conditions, **given},
            latents=self.latents - given.keys(),
            interventions=_without(self.interventions, given),
        )

    def __or__(self, values: Values) -> BoundModel:
        """`m | {"x": 1.0}` is `m.condition({"x": 1.0})`."""
        if not isinstance(values, Mapping):
            return NotImplemented
        return self.condition(values)

    def decondition(self, *sites: str) -> BoundModel:
        """Make sites latent again, whether `condition`, `fix` or `obs=` in the function gave them their values.

        Args:
            sites: names; none means all that `condition` has observed.

        Returns:
            A new model.
        """
        for site in sites:
            if not isinstance(site, str):
                raise TypeError(
                    f"decondition: give the names of sites one by one, decondition('a', 'b'); got {site!r}."
                )
        names = sites or tuple(self.conditions)
        return replace(
            self,
            conditions=_without(self.conditions, names),
            latents=self.latents | frozenset(names),
            interventions=_without(self.interventions, names),
        )

    def fix(self, values: Values | None = None, /, **named: Any) -> BoundModel:
        """Intervene on sites: their values are given and their terms leave the log density (do). The last call wins.

        Args:
            values: values by site.
            named: the same, as keywords.

        Returns:
            A new model.
        """
        given = _merge("fix", values, named)
        return replace(
            self,
            conditions=_without(self.conditions, given),
            latents=self.latents - given.keys(),
            interventions={**self.interventions, **given},
        )

    def marginalize(self, *sites: str) -> BoundModel:
        """Sum discrete sites out of the density; see `dualtape.marginalize`.

        Args:
            sites: names.

        Returns:
            A new model, of whose sites these are none that is sampled.
        """
        from .marginalization import marginalize

        return marginalize(self, sites)

    def call(self) -> Any:
        """Run the function; what it returns."""
        return self.model.function(*self.args, **self.kwargs)

    def run(self, interpreter: AbstractInterpreter) -> Any:
        """Run the function, whose declarations the interpreter gives a meaning; what it returns."""
        with interpreting(interpreter):
            return self.call()

    def summary(self) -> ModelSummary:
        """Print the sites of the model: kinds, distributions, supports, shapes, dims and numbers of parameters.

        Returns:
            The summary that is printed; `summary["theta"].parents` are the sites on which one depends directly.

        Raises:
            ValueError, TypeError: on a repeated name, or a shape that does not fit.

        Example:
            `gdemo(1.5, 2.0).summary()`
        """
        from .describe.summary import summarize

        print(found := summarize(self))
        return found

    def graph(self, path: str | Path | None = None) -> Graph:
        """Draw the plate diagram of the model; see `dualtape.ppl.describe.diagram.draw_diagram`.

        Args:
            path: of a picture (.svg, .png, .pdf, ...), its source (.dot, .gv) or text (.txt); None writes none.

        Returns:
            The graph: a notebook shows the picture, `print` the text.

        Raises:
            ValueError: on a suffix that is none, or that is not known.

        Example:
            `eight_schools_centered(Y, SIGMA).graph("schools.svg")`
        """
        from .describe.diagram import draw_diagram

        return draw_diagram(self, path)

    def __repr__(self) -> str:
        """Name and the names of what is conditioned and fixed."""
        notes = [
            f"{word}={sorted(names)}"
            for word, names in (
                ("conditioned", self.conditions),
                ("deconditioned", self.latents),
                ("fixed", self.interventions),
                ("marginalized", self.marginalized),
            )
            if names
        ]
        return f"BoundModel({', '.join([self.name, *notes])})"


def _without(values: Values, names: Iterable[str]) -> Values:
    return {name: value for name, value in values.items() if name not in set(names)}


def _merge(method: str, values: Values | None, named: dict[str, Any]) -> dict[str, Any]:
    if values is not None and not isinstance(values, Mapping):
        raise TypeError(f"{method}: expected a dict from site names to values, got {values!r}.")
    merged = {**(values or {}), **named}
    for name, value in merged.items():
        if not isinstance(name, str):
            raise TypeError(f"{method}: site names are strings, got {name!r}.")
        if value is None:
            raise ValueError(f"{method}: site '{name}' needs a value; use decondition('{name}') to make it latent.")
    return {name: as_data(value) for name, value in merged.items()}
