"""The words of the language: `rv`, `deterministic`, `factor`, `plate`, `submodel`, `scan`."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from .interpreter import Plate, Weight, interpreter_for, open_plates, opened

if TYPE_CHECKING:
    from .model import BoundModel


def rv(name: str, distribution: Distribution, obs: Any = None, dims: str | Sequence[str] | None = None) -> Any:
    """Declare a random variable, latent or observed.

    Args:
        name: unique in the model.
        distribution: any distribution of `numpyro.distributions`. Inside plates it is expanded to their sizes.
        obs: observed value, or None for a latent variable.
        dims: names of the dimensions of the value, for the result. By default those of the enclosing plates.

    Returns:
        The value: `obs`, or what the log density is being evaluated at.

    Raises:
        ValueError: if the name is taken, or shapes do not fit; naming the site.
        TypeError: if `distribution` is no distribution.

    Example:
        `m = rv("m", dist.Normal(0.0, 1.0))`
    """
    interpreter = interpreter_for("rv", name)
    if not isinstance(distribution, Distribution):
        hint = " (that is the class; call it with its parameters)" if isinstance(distribution, type) else ""
        raise TypeError(f"site '{name}': expected a numpyro distribution, got {distribution!r}{hint}.")
    return interpreter.random_variable(name, distribution, obs, _dims(name, dims), open_plates())


def deterministic(name: str, value: Any, dims: str | Sequence[str] | None = None) -> Any:
    """Name a value that the random variables determine, to find it in the result.

    Args:
        name: unique in the model.
        value: an array or a number.
        dims: names of its dimensions. By default those of the enclosing plates.

    Returns:
        `value` as an array.

    Raises:
        ValueError: if the name is taken.
    """
    array = jnp.asarray(value)
    interpreter_for("deterministic", name).deterministic(name, array, _dims(name, dims), open_plates())
    return array


def factor(name: str, log_weight: Any = None, *, prior: Any = None, likelihood: Any = None) -> None:
    """Add a term to the log density.

    Args:
        name: unique in the model.
        log_weight: log of an unnormalised weight, which counts to the likelihood; an array is summed, and its entries
            are the pointwise log likelihood.
        prior: what counts to the prior; maximum likelihood and `log_likelihood` leave it out.
        likelihood: another way to write `log_weight`.

    Raises:
        ValueError: if the name is taken.
        TypeError: if no weight is given, or the likelihood twice.

    Example:
        `factor("smooth", prior=-jnp.sum(jnp.diff(x) ** 2))`
    """
    if log_weight is not None and likelihood is not None:
        raise TypeError(
            f"factor('{name}'): log_weight counts to the likelihood, so give it once; write "
            f"factor('{name}', prior=..., likelihood=...)."
        )
    likelihood = log_weight if likelihood is None else likelihood
    if prior is None and likelihood is None:
        raise TypeError(f"factor('{name}'): give a log weight, factor('{name}', log_weight).")
    interpreter_for("factor", name).factor(name, Weight(prior, likelihood), open_plates())


@contextmanager
def plate(name: str, size: int | Sequence[Any] | np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """A batch of conditionally independent random variables.

    Inside the block every distribution is expanded to the sizes of the open plates, outermost first, as the last
    dimensions of its batch shape; the results carry the plates' names as dimensions.

    Args:
        name: of the plate, and of the dimension in the result.
        size: how many, or the labels themselves, which become coordinates of the result.

    Yields:
        The indices 0 ... size − 1, to index per-group parameters with.

    Raises:
        ValueError, TypeError: on a size that is none, or a plate inside itself.

    Example:
        `with plate("school", ["A", "B", "C"]): theta = rv("theta", dist.Normal(mu, tau))`
    """
    own = _dimension("plate", name, interpreter_for("plate", name).qualified(name), size)
    outer = open_plates()
    if any(plate.name == own.name for plate in outer):
        raise ValueError(f"plate '{name}' is opened inside itself; give the inner plate a name of its own.")
    with opened((*outer, own)):
        yield np.arange(own.size)


def submodel(name: str, model: BoundModel) -> Any:
    """Use another model as a part of this one.

    Its sites are named `name.site`, its plates `name.plate`, and so they are conditioned and shown; inside plates they
    are expanded like any other. What the other model has been conditioned on, or fixed to, stays, unless this model
    says otherwise.

    Args:
        name: unique among the submodels of a model.
        model: another model with its data.

    Returns:
        What its function returns.

    Raises:
        ValueError: if the name is taken.
        TypeError: if `model` is no model with data.

    Example:
        `effect = submodel("county", hierarchy(n_counties))` above `@model def hierarchy(n): ...; return mu + tau * z`
    """
    return interpreter_for("submodel", name).submodel(name, model)


def scan(
    name: str,
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any = None,
    length: int | Sequence[Any] | np.ndarray[Any, Any] | None = None,
) -> tuple[Any, Any]:
    """Declare the random variables of a time series, step by step, in one compiled loop.

    The step is a function that declares random variables, called as `jax.lax.scan` calls its own. Each of its sites
    gets a first dimension, called `name`, with an entry for each step; the plates around the loop follow.

    Args:
        name: of the dimension.
        step: from the carry and the entry of `xs` of this step to the next carry and what is to be returned.
        carry: what the first step gets: arrays, of the shapes that the step returns.
        xs: arrays, or a tree of them, with a first dimension of the length of the series; data to be observed, too.
        length: how many steps, or their labels, which become coordinates of the result; needed where `xs` is None.

    Returns:
        The carry of the last step, and what the steps returned, with the dimension of the series first.

    Raises:
        TypeError, ValueError: where the length is not known, lengths differ, or a step changes the shape of the carry.

    Example:
        `def step(x, y): x = rv("x", dist.Normal(x, 0.1)); rv("y", dist.Normal(x, 1.0), obs=y); return x, None`
        and in the model `scan("time", step, 0.0, y)`

    Source: the convention is that of `jax.lax.scan` and of NumPyro's `contrib.control_flow.scan`.
    """
    interpreter = interpreter_for("scan", name)
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else None for leaf in jax.tree.leaves(xs)}
    if None in lengths or len(lengths) > 1:
        shapes = ", ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(xs))
        raise ValueError(f"scan '{name}': the arrays of xs must have one first dimension, got shapes {shapes}.")
    known = next(iter(lengths), None)
    if known is None and length is None:
        raise TypeError(f"scan '{name}': how many steps? Give xs, or length.")
    time = _dimension("scan", name, interpreter.qualified(name), known if length is None else length)
    if known is not None and known != time.size:
        raise ValueError(f"scan '{name}': length says {time.size} steps, and xs has {known}; give one of them.")
    return interpreter.scan(time, step, carry, xs, open_plates())


def _dimension(word: str, name: str, qualified: str, size: Any) -> Plate:
    """A dimension from its size, or from the labels of its entries."""
    if isinstance(size, (int, np.integer)) and not isinstance(size, bool):
        length, coords = int(size), None
    elif np.ndim(size) == 1 and not isinstance(size, str):
        coords = tuple(_label(label) for label in np.asarray(size))
        length = len(coords)
        repeated = [label for label, count in Counter(coords).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{word} '{name}': the label '{repeated[0]}' stands for several entries; give each its own, as "
                f"numpy.unique(labels) does, or the size alone."
            )
    else:
        raise TypeError(f"{word} '{name}': give a size or a one-dimensional list of labels, got {size!r}.")
    if length < 1:
        raise ValueError(f"{word} '{name}' has size {length}; a {word} needs at least one entry.")
    return Plate(qualified, length, coords)


def _label(label: Any) -> Any:
    """A label that files can hold: periods and tuples become text."""
    if isinstance(label, tuple):
        return ", ".join(map(str, label))
    return label if isinstance(label, (str, bool, int, float, np.generic, datetime.date)) else str(label)


def _dims(name: str, dims: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if dims is None:
        return None
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    if not all(isinstance(dim, str) for dim in names):
        raise TypeError(f"site '{name}': dims must be names, got {dims!r}.")
    return names
