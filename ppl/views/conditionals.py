"""Blocks that are drawn from a conditional distribution which the user knows, and the check that it is the model's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from ...samplers.random import chain_key, fold_in, jax_key
from ..blocks.coordinates import Array, Part, as_parts
from ..blocks.density import AbstractBlockDensity
from ..transforms import describe, is_discrete
from .priors import with_prior
from .values import ValuesDensity, with_values

if TYPE_CHECKING:
    from ..log_density import ModelDensity

# At how many points drawn from the prior a conditional is compared with the model.
_POINTS = 3


class Values(dict[str, Any]):
    """Values by site, with an error that names those that there are."""

    def __missing__(self, name: str) -> Any:
        """An unknown name."""
        known = ", ".join(f"'{key}'" for key in self)
        raise KeyError(f"Conditional: there is no value '{name}' outside of this block; there are {known}")


@dataclass(frozen=True)
class ConditionalDensity(AbstractBlockDensity):
    """The density of a block with the user's conditional of it.

    Args:
        block: the same with the bijections of its sites.
        names: of the results of the program that hold the values of everything that does not depend on the block.
        function: from these values to the distribution of the block, or, after a key, to values of it.
        draws: whether it is the latter.
    """

    block: ValuesDensity
    names: tuple[tuple[str, int], ...]
    function: Callable[..., Any]
    draws: bool

    def identity(self) -> Hashable:
        """See `AbstractBlockDensity.identity`."""
        return self.block.identity(), self.names, self.function

    def draw(self, key: Array, *constants: Any) -> Array:
        """A position of the block, shape (dimension,)."""
        values = self.values(*constants)
        if self.draws:
            return self.block.unconstrain(self._drawn(jax_key(key), values), *constants)
        found = {
            site: distribution.sample(jax_key(fold_in(key, i)))
            for i, (site, distribution) in enumerate(self.distributions(values).items())
        }
        return self.block.unconstrain(found, *constants)

    def values(self, *constants: Any) -> Values:
        """The values of everything that does not depend on the block."""
        results = self.results(jnp.zeros(self.dimension), *constants)
        return Values({name: results[i] for name, i in self.names})

    def distributions(self, values: Values) -> dict[str, Distribution]:
        """What the user's function gives, by site.

        Raises:
            TypeError, ValueError: where it does not fit the block.
        """
        found = self._by_site(self._call(values), "a distribution")
        for site, distribution in found.items():
            if not isinstance(distribution, Distribution):
                raise TypeError(
                    f"Conditional for '{site}': the function must return a numpyro distribution, got {distribution!r}; "
                    f"a function that draws by itself takes a key first: fn(key, values)."
                )
            self._check_shape(site, tuple(distribution.shape()))
            if is_discrete(distribution) != (site in self.discrete):
                kind = "discrete" if site in self.discrete else "continuous"
                raise ValueError(
                    f"Conditional for '{site}': the site is {kind}, and the function returns {describe(distribution)}; "
                    f"return a {kind} distribution."
                )
        return found

    def _drawn(self, key: Array, values: Values) -> dict[str, Any]:
        found = self._by_site(self._call(key, values), "a value")
        for site, value in found.items():
            if isinstance(value, Distribution):
                raise TypeError(
                    f"Conditional for '{site}': a function of a key and values must return the value that it has "
                    f"drawn, got a distribution; leave out the key, or return distribution.sample(key)."
                )
            self._check_shape(site, tuple(jnp.shape(value)))
        return found

    def _call(self, *arguments: Any) -> Any:
        """What the user's function returns."""
        try:
            return self.function(*arguments)
        except jax.errors.JAXTypeError as error:
            error.add_note(
                f"Conditional for {self._title()}: the function is traced once, with placeholders for the values, like "
                f"a model: use jnp for numpy functions and jnp.where for `if`."
            )
            raise

    def _by_site(self, found: Any, what: str) -> dict[str, Any]:
        if not isinstance(found, Mapping):
            if len(self.sites) > 1:
                raise TypeError(
                    f"Conditional for {self._title()}: the block has several sites, so the function must return a dict "
                    f"with {what} for each; got {found!r}."
                )
            return {self.sites[0]: found}
        if set(found) != set(self.sites):
            raise ValueError(
                f"Conditional for {self._title()}: the function returns {what} for {sorted(map(str, found))}; return "
                f"one for each site of the block and for no other."
            )
        return {site: found[site] for site in self.sites}

    def _check_shape(self, site: str, shape: tuple[int, ...]) -> None:
        expected = self._shapes[site]
        if shape != expected:
            raise ValueError(
                f"Conditional for '{site}': what the function gives has shape {shape}, and the site has shape "
                f"{expected}; expand it or index it."
            )

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        results = [jnp.zeros(())] * len(self.given.after.outputs)
        return {own.site: tuple(own.at(results).shape()) for own in self.block.own}

    def _title(self) -> str:
        return ", ".join(f"'{site}'" for site in self.sites)


def drawn_by(
    whole: ModelDensity, parts: Mapping[str, Part], function: Callable[..., Any], *, verify: bool
) -> ConditionalDensity:
    """A block with the user's conditional of it.

    Args:
        whole: the model.
        parts: of the block.
        function: from the values of everything else to a distribution, or from a key and these to values.
        verify: whether to compare its density with the model's.

    Raises:
        TypeError, ValueError: where what the function gives does not fit the block, or is not its conditional.
    """
    block = {whole.sites.index(site) for site, _ in parts.values()}
    dependencies = whole.program.dependencies()
    others = {name: i for name, i in whole.values.items() if not dependencies[i] & block}
    density = with_values(whole, parts, tuple(others.values()))
    first = len(density.given.after.outputs) - len(others)
    names = tuple((name, first + i) for i, name in enumerate(others))
    conditional = ConditionalDensity(
        density.coordinates, density.discrete, density.given, density.terms, density, names, function, _draws(function)
    )
    if set(whole.sites) <= whole.distributions.keys():
        _examine(whole, parts, conditional, verify=verify and not conditional.draws)
    return conditional


def _draws(function: Callable[..., Any]) -> bool:
    """Whether a function takes a key before the values."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return False
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) not in (1, 2):
        raise TypeError(
            f"Conditional: the function takes {len(needed)} arguments; write fn(values), which returns a distribution, "
            f"or fn(key, values), which returns a value."
        )
    if len(needed) == 2 and needed[1].name in ("key", "rng_key", "rng"):
        raise TypeError(
            f"Conditional: the function takes ({needed[0].name}, {needed[1].name}); the key comes first, write "
            f"fn({needed[1].name}, {needed[0].name})."
        )
    return len(needed) == 2


def _examine(whole: ModelDensity, parts: Mapping[str, Part], conditional: ConditionalDensity, *, verify: bool) -> None:
    """Try a conditional at points drawn from the prior; all in one compiled program."""
    prior = with_prior(whole, as_parts(whole.sites))

    def attempt(key: Array) -> tuple[Array, Array, Array]:
        rest = prior.draw_prior(fold_in(key, 0), *prior.given.at(jnp.zeros(whole.dimension), whole.data))
        given = conditional.given.at(rest, whole.data)
        # Where the prior has put the block, too: a conditional may leave out a part of the support.
        present = jnp.concatenate([rest[whole.coordinates.positions(part)] for part in parts.values()])
        drawn = [conditional.draw(fold_in(key, 1), *given), conditional.draw(fold_in(key, 2), *given), present]
        model = [conditional.log_density(q, *given) - conditional.block.constrain(q, *given)[1] for q in drawn]
        if conditional.draws:
            return jnp.stack(drawn), jnp.stack(model), jnp.zeros(3)
        distributions = conditional.distributions(conditional.values(*given))
        own = []
        for q in drawn:
            values = conditional.block.constrain(q, *given)[0]
            own.append(sum(jnp.sum(d.log_prob(values[site])) for site, d in distributions.items()))
        return jnp.stack(drawn), jnp.stack(model), jnp.stack(own)

    compiled = jax.jit(attempt)
    for point in range(_POINTS):
        drawn, model, own = (np.asarray(array) for array in compiled(fold_in(chain_key(0, 0), point)))
        if not np.isfinite(drawn[:2]).all() or (np.isneginf(model[:2]).any() and np.isfinite(own[:2]).all()):
            raise ValueError(
                f"Conditional for {conditional._title()}: the function draws a value outside of the support of the "
                f"site, or where the model's density is zero; draw inside."
            )
        # Where the model itself breaks down at a draw from its prior, there is nothing to compare.
        if not verify or not np.isfinite(model).all():
            continue
        if not np.isfinite(own[2]):
            raise ValueError(
                f"Conditional for {conditional._title()}: the distribution leaves out values that the model allows: "
                f"its density is zero where the model's is not. Correct its support, or pass verify=False."
            )
        for i, j in ((0, 1), (0, 2)):
            ours, theirs = model[i] - model[j], own[i] - own[j]
            scale = max(1.0, float(np.abs(model).max()), float(np.abs(own).max()))
            if not abs(ours - theirs) <= 1e4 * float(np.finfo(model.dtype).eps) * scale:
                raise ValueError(
                    f"Conditional for {conditional._title()}: the distribution is not the conditional of the model. "
                    f"Between two values its log density differs by {theirs:.6g} and that of the model by {ours:.6g}. "
                    f"Correct it, or pass verify=False if it is meant to differ."
                )
