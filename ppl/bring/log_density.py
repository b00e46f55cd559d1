"""Any JAX function that returns a log density, as a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ..language import factor, rv
from ..model import BoundModel, Model

HostArray = np.ndarray[Any, Any]
Names = str | Sequence[str] | None
Supports = Mapping[str, constraints.Constraint] | None

# The term of the log density; no site can be called so by accident.
TERM = "log density"


def LogDensity(  # noqa: N802 - it reads as what it makes
    fn: Callable[[Any], Any], init: Any, names: Names = None, supports: Supports = None
) -> BoundModel:
    """A log density that was written by hand, as a model: all that works on a model works on it.

    The target has the density

        π(θ) ∝ exp fn(θ),    θ in the given supports,

    which need not be normalised. Sites with a support are sampled in unconstrained coordinates; `fn` gets the
    constrained values and leaves their Jacobians out.

    Args:
        fn: from values like `init`, floating-point JAX arrays, to the log density, shape (). What else it needs it
            closes over.
        init: where chains start, and the structure and shapes of what `fn` takes: a dict of arrays by site, an array,
            or any pytree of arrays. Whole numbers are taken as floating-point numbers.
        names: of the sites. Of an array: one name for all of it ("x" by default), or a name for each entry of a
            one-dimensional one, each a site of shape (). Of a pytree: a name for each leaf; by default their paths,
            joined by dots, which are the keys of a dict.
        supports: constraints of `numpyro.distributions.constraints` by site; the others are real.

    Returns:
        A model with its data. Its sites have flat priors, and one term, `log density`, holds `fn`.

    Raises:
        TypeError: if `fn` is not a function of one argument, or does not return a number; if `init` holds anything but
            real numbers, or a support is not a continuous constraint.
        ValueError: if names do not fit, `fn` returns an array, or the log density is not finite at `init`.

    Example:
        >>> def banana(x):
        ...     return -0.5 * (x[0] ** 2 / 4 + (x[1] - x[0] ** 2) ** 2)
        >>> idata = sample(LogDensity(banana, np.zeros(2), names=("a", "b")))
    """
    model = DensityModel(fn, init, names, supports)
    with jax.enable_x64(True):
        model.check()
    return BoundModel(model, (), {}, initial=model.initial)


class DensityModel(Model):
    """The model behind `LogDensity`.

    Args:
        fn, init, names, supports: see `LogDensity`.
    """

    def __init__(self, fn: Callable[[Any], Any], init: Any, names: Names = None, supports: Supports = None) -> None:
        _check_function(fn, init)
        self.arguments = (fn, init, names, supports)
        self.fn = fn
        with_paths, self.tree = jax.tree_util.tree_flatten_with_path(init)
        leaves = [_as_numbers(leaf, _path(path)) for path, leaf in with_paths]
        paths = [_path(path) for path, _ in with_paths]
        self.entries = _names_entries(leaves, paths, names)
        self.initial: dict[str, HostArray] = _named(leaves, paths, names)
        self.supports = _checked_supports(supports, self.initial)
        super().__init__(self._declare)

    @property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.fn, "__name__", "log density")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made from."""
        return type(self), self.arguments

    def check(self) -> None:
        """Evaluate the log density where chains start.

        Raises:
            TypeError, ValueError: if it is no finite number there.
        """
        title = f"LogDensity({self.name})"
        for site, support in self.supports.items():
            if not np.all(support(jnp.asarray(self.initial[site], float))):
                raise ValueError(
                    f"{title}: init for '{site}' lies outside of its support, {support}; give a value inside."
                )
        returned = self.fn(self._arguments({name: jnp.asarray(v, float) for name, v in self.initial.items()}))
        try:
            value = jnp.asarray(returned)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{title}: the function returned {type(returned).__name__}; it must return the log density, a number."
            ) from error
        if value.shape != ():
            raise ValueError(
                f"{title}: the function returned an array of shape {value.shape}; the log density is one number: "
                f"sum its terms with jnp.sum."
            )
        if jnp.iscomplexobj(value):
            raise TypeError(f"{title}: the function returned a complex number; a log density is real.")
        if not jnp.isfinite(value):
            raise ValueError(
                f"{title}: the log density is {float(value)} at init; give an init where it is finite, and `supports=` "
                f"for values that must be positive, in an interval, and so on."
            )

    def _declare(self) -> None:
        values = {site: rv(site, self._flat(site)) for site in self.initial}
        factor(TERM, prior=self.fn(self._arguments(values)))

    def _flat(self, site: str) -> dist.Distribution:
        shape, support = np.shape(self.initial[site]), self.supports.get(site, constraints.real)
        batch = len(shape) - support.event_dim
        return dist.ImproperUniform(support, shape[:batch], shape[batch:])

    def _arguments(self, values: dict[str, Any]) -> Any:
        """What the function takes, from the values of the sites."""
        if self.entries:
            return jnp.stack(list(values.values()))
        return jax.tree.unflatten(self.tree, list(values.values()))


def _check_function(fn: object, init: Any) -> None:
    if not callable(fn):
        raise TypeError(f"LogDensity: expected a function that returns a log density, got {fn!r}.")
    try:
        inspect.signature(fn).bind(init)
    except TypeError as error:
        raise TypeError(
            f"LogDensity({getattr(fn, '__name__', fn)}): the function takes one argument, values like init ({error}); "
            f"write LogDensity(lambda values: fn(values, data), init) to give it data."
        ) from None
    except ValueError:  # a builtin that does not tell what it takes
        pass


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _as_numbers(leaf: Any, path: str) -> HostArray:
    """Initial values as float64: the precision is that of the run, not of whoever made the array."""
    where = f"init: '{path}'" if path else "init"
    array = np.asarray(leaf)
    if array.dtype == bool or not (jnp.issubdtype(array.dtype, np.integer) or jnp.issubdtype(array.dtype, np.floating)):
        raise TypeError(f"LogDensity: {where} holds {array.dtype} values; give arrays of real numbers.")
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"LogDensity: {where} has a value that is not finite; give finite numbers.")
    return numbers


def _names_entries(leaves: list[HostArray], paths: list[str], names: Names) -> bool:
    """Whether the names are those of the entries of an array."""
    return paths == [""] and leaves[0].ndim == 1 and names is not None and not isinstance(names, str)


def _named(leaves: list[HostArray], paths: list[str], names: Names) -> dict[str, HostArray]:
    """The initial values by site."""
    if not leaves:
        raise ValueError("LogDensity: init holds no arrays, so there is nothing to sample.")
    if names is None:
        given: tuple[Any, ...] = tuple(path or "x" for path in paths)
    else:
        given = (names,) if isinstance(names, str) else tuple(names)
    wrong = [name for name in given if not isinstance(name, str) or not name]
    if wrong:
        raise TypeError(f"LogDensity: names are non-empty strings, got {wrong[0]!r}.")
    values: Sequence[Any] = list(leaves[0]) if _names_entries(leaves, paths, names) else leaves
    if len(given) != len(values):
        what = "entries of init" if _names_entries(leaves, paths, names) else "arrays in init"
        raise ValueError(f"LogDensity: {len(given)} name(s) for {len(values)} {what}; give each a name of its own.")
    repeated = sorted({name for name in given if given.count(name) > 1})
    if repeated:
        raise ValueError(f"LogDensity: the name '{repeated[0]}' is given twice; give each site a name of its own.")
    return {name: np.asarray(value) for name, value in zip(given, values, strict=True)}


def _checked_supports(supports: Supports, initial: dict[str, HostArray]) -> dict[str, constraints.Constraint]:
    for site, support in (supports or {}).items():
        if site not in initial:
            known = ", ".join(f"'{name}'" for name in initial)
            raise ValueError(f"LogDensity: supports names '{site}', which is no site; these are: {known}.")
        if not isinstance(support, constraints.Constraint):
            raise TypeError(
                f"LogDensity: the support of '{site}' must be one of numpyro.distributions.constraints, such as "
                f"constraints.positive, got {support!r}."
            )
        if support.is_discrete:
            raise TypeError(
                f"LogDensity: the support of '{site}' is discrete; declare it with rv in a @model, and add the log "
                f"density there with factor."
            )
        if support.event_dim > initial[site].ndim:
            raise ValueError(
                f"LogDensity: the support of '{site}', {support}, is one of arrays with {support.event_dim} "
                f"dimension(s), and init has shape {initial[site].shape}."
            )
    return dict(supports or {})
