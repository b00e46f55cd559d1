"""Conjugate updates by counting: priors that each child changes by adding to their parameters.

    prior                     children                              adds to the parameters
    Beta(a, b)                Bernoulli(p), Binomial(n, p)          (y, n - y)
    Dirichlet(a)              Categorical(p), Multinomial(n, p)     counts of the categories
    Gamma(a, b)               Poisson(c v)                          (y, c)
                              Exponential(c v), Gamma(k, c v)       (k, c y), k = 1 for the former
                              InverseGamma(k, c v)                  (k, c / y)
                              Normal(loc, c / √v)                   (½, (y - loc)² / 2c²)
    InverseGamma(a, b)        Exponential(c / v), Gamma(k, c / v)   (k, c y)
                              InverseGamma(k, c / v)                (k, c / y)
                              Normal(loc, c √v)                     (½, (y - loc)² / 2c²)

A parameter of a child is an array whose elements are c vᵏ, each with an element v of the site. Which one, nobody need
know: the derivative of the parameter at v = 1 has k c there and 0 elsewhere, so that its transpose, applied to numbers
over k c, adds these numbers up by elements of the site, wherever indices, plates and broadcasting have taken them.

Source: Diaconis and Ylvisaker (1979), "Conjugate priors for exponential families"; Gelman et al. (2013), "Bayesian Data
Analysis", chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from ...ad.equations import shaped
from ...samplers.random import jax_key
from ..blocks.coordinates import Array
from ..blocks.density import AbstractBlockDensity
from ..programs.program import Program
from ..transforms import describe, unconstrain_value
from .factors import AbstractUpdate, Factor, Factors, size_of
from .forms import Form, Monomial, Other, forms
from .priors import innermost

_HALF = Fraction(1, 2)

# From a child, its value, and the coefficient c of its parameter to what is added to the parameters of the prior.
Statistic = Callable[[Any, Array, Array], tuple[Array, ...]]


@dataclass(frozen=True, eq=False)
class Link:
    """How a child of one family depends on a site of another.

    Args:
        parameter: which parameter of the child does: c vᵏ.
        exponent: k.
        others: its other parameters, which must not.
        statistic: what the child adds to the parameters of the prior.
    """

    parameter: str
    exponent: Fraction
    others: tuple[str, ...]
    statistic: Statistic


@dataclass(frozen=True, eq=False)
class Family:
    """A family of priors.

    Args:
        parameters: of such a prior.
        posterior: the distribution with such parameters.
        links: to children, by their classes.
        simplex: whether its values are probabilities, so that coefficients other than 1 are not allowed.
    """

    parameters: Callable[[Any], tuple[Any, ...]]
    posterior: Callable[..., Distribution]
    links: Mapping[type[Distribution], Link]
    simplex: bool


@dataclass(frozen=True)
class Counting(AbstractUpdate):
    """Draws a site from a distribution of its prior's family, to whose parameters its children have added.

    Args:
        family: of the prior.
        site: the site itself.
        unconstrained: which result of the block's program is its whole unconstrained array.
        children: with how they depend on the site.
    """

    family: Family
    site: Factor
    unconstrained: int
    children: tuple[tuple[Factor, Link], ...]

    def draw(self, key: Array, density: AbstractBlockDensity, constants: Sequence[Any]) -> Array:
        """See `AbstractUpdate.draw`."""
        posterior = self.posterior(density, constants)
        value = posterior.sample(jax_key(key))
        # Where a draw rounds to the edge of the support, it is put where the bijection's own values end.
        limits = jnp.finfo(value.dtype)
        value = jnp.clip(value, limits.tiny, 1 - limits.eps if self.family.simplex else limits.max)
        whole = unconstrain_value(self.site.name, posterior, value)
        program = density.given.after.select([self.unconstrained])

        def assembled(part: Array) -> Any:
            return program(part, *constants)[0]

        # Of all elements, those of the block.
        (part,) = jax.vjp(assembled, *density.coordinates.split(jnp.zeros(density.dimension)))[1](whole)
        return jnp.ravel(part)

    def posterior(self, density: AbstractBlockDensity, constants: Sequence[Any]) -> Distribution:
        """The conditional distribution of all elements of the site, of which the block may be a part."""
        numbers = [*self.site.outputs[1:], *(i for child, _ in self.children for i in child.outputs)]
        program = _from_value(density.given.after, self.site.value, numbers)

        def results(value: Array) -> dict[int, Any]:
            return dict(zip(numbers, program(value, *constants), strict=True))

        ones = jnp.ones(*shaped(program.inputs[0]))
        prior = self.site.distribution(results(ones))
        parameters = [jnp.broadcast_to(p, ones.shape) for p in self.family.parameters(innermost(prior))]
        for child, link in self.children:
            for i, statistic in enumerate(_added_up(child, link, results, ones)):
                parameters[i] = parameters[i] + statistic
        return self.family.posterior(*parameters)


def counting(block: Factors, unconstrained: int) -> Counting:
    """The update of a site by counting.

    Args:
        block: the site, or a part of it.
        unconstrained: see `Counting`.

    Raises:
        ValueError: naming the site and the reason, where its conditional is not found to be of its prior's family.
    """
    (name,), (array,) = block.own, block.variables
    site, program = block.known[name], block.program
    variable: Any = program.outputs[site.value]
    # The unconstrained array itself counts as anything: nothing but the Jacobian may depend on it.
    start: dict[Any, Form] = {array: Other("its unconstrained value"), variable: Monomial()}
    found = forms(program, start, positive=True, alone=size_of(variable) == 1)
    prior = innermost(site.distribution([None] * len(found)))
    family = FAMILIES[type(prior)]
    children = []
    for child in block.children(found):
        distribution = innermost(child.distribution(found))
        if type(distribution) not in family.links:
            raise block.refused(
                f"{block.title} is {describe(prior)}, but its child '{child.name}' is {describe(distribution)}, and "
                f"the children conjugate to it are {', '.join(kind.__name__ for kind in family.links)}"
            )
        link = family.links[type(distribution)]
        for what, form in (("value", found[child.value]), *((o, getattr(distribution, o)) for o in link.others)):
            if form is not None:
                raise block.refused(f"the {_WORDS.get(what, what)} of '{child.name}' depends on {block.title}")
        _check_parameter(block, child.name, link, getattr(distribution, link.parameter), exact=family.simplex)
        children.append((child, link))
    return Counting(family, site, unconstrained, tuple(children))


_WORDS = {"loc": "location"}


def _check_parameter(block: Factors, child: str, link: Link, form: Form, *, exact: bool) -> None:
    if isinstance(form, Monomial) and form.exponent == link.exponent and not (exact and form.by):
        return
    title, exponent = block.title, link.exponent
    must = f"elements of {title} as they stand" if exact else f"proportional to {_to_the_power(title, exponent)}"
    if isinstance(form, Monomial) and form.exponent != exponent:
        found = f"goes as {_to_the_power(title, form.exponent)}"
    else:
        found = "is not" + (f" ({form.by})" if form else "")
    raise block.refused(f"the {link.parameter} of '{child}' must be {must}, and {found}")


def _to_the_power(title: str, exponent: Fraction) -> str:
    return title if exponent == 1 else f"{title}**({exponent})"


def _from_value(program: Program, value: int, outputs: Sequence[int]) -> Program:
    """A program of an unconstrained array and constants as one of its own result `value` and the constants."""
    variable: Any = program.outputs[value]
    equations = tuple(equation for equation in program.equations if variable not in equation.outvars)
    chosen = tuple(program.outputs[i] for i in outputs)
    return Program((variable, *program.inputs[1:]), equations, chosen).select(range(len(chosen)))


def _added_up(child: Factor, link: Link, results: Callable[[Array], dict[int, Any]], ones: Array) -> list[Array]:
    """What a child adds to the parameters of the prior, by elements of the site."""

    def parameter(value: Array) -> Array:
        return jnp.asarray(getattr(innermost(child.distribution(results(value))), link.parameter))

    there = results(ones)
    distribution, value = innermost(child.distribution(there)), jnp.asarray(there[child.value], ones.dtype)
    coefficient = parameter(ones)
    statistics = link.statistic(distribution, value, coefficient)
    shape = jnp.broadcast_shapes(coefficient.shape, *(statistic.shape for statistic in statistics))
    pull = jax.vjp(lambda value: jnp.broadcast_to(parameter(value), shape), ones)[1]
    # A coefficient of zero, as of an exposure of zero, takes the site out of the child's density.
    safe = jnp.where(coefficient == 0, 1.0, float(link.exponent) * coefficient)
    weights = [jnp.where(coefficient == 0, 0.0, statistic / safe) for statistic in statistics]
    return [pull(jnp.broadcast_to(weight, shape))[0] for weight in weights]


def _bernoulli(child: Any, y: Array, c: Array) -> tuple[Array, ...]:
    return y, 1 - y


def _binomial(child: Any, y: Array, c: Array) -> tuple[Array, ...]:
    return y, child.total_count - y


def _categorical(child: Any, y: Array, c: Array) -> tuple[Array, ...]:
    return ((y[..., None] == jnp.arange(c.shape[-1])).astype(c.dtype),)


def _multinomial(child: Any, y: Array, c: Array) -> tuple[Array, ...]:
    return (y,)


def _poisson(child: Any, y: Array, c: Array) -> tuple[Array, ...]:
    return y, c


def _exponential(child: Any, y: Array, c: Array) -> tuple[Array, ...]:
    return jnp.ones_like(y), c * y


def _gamma(child: Any, y: Array, c: Array) -> tuple[Array, ...]:
    return child.concentration * jnp.ones_like(y), c * y


def _inverse_gamma(child: Any, y: Array, c: Array) -> tuple[Array, ...]:
    return child.concentration * jnp.ones_like(y), c / y


def _normal(child: Any, y: Array, c: Array) -> tuple[Array, ...]:
    return jnp.full_like(y, 0.5), jnp.square((y - child.loc) / c) / 2


def _scales(rate: Fraction) -> dict[type[Distribution], Link]:
    """Children of a site v that is a rate, or a scale: whose own rates are proportional to it to the power ±1."""
    return {
        dist.Exponential: Link("rate", rate, (), _exponential),
        dist.Gamma: Link("rate", rate, ("concentration",), _gamma),
        dist.InverseGamma: Link("rate", rate, ("concentration",), _inverse_gamma),
        dist.Normal: Link("scale", -rate / 2, ("loc",), _normal),
    }


_ONE = Fraction(1)
_BETA = {
    dist.BernoulliProbs: Link("probs", _ONE, (), _bernoulli),
    dist.BinomialProbs: Link("probs", _ONE, ("total_count",), _binomial),
}
_DIRICHLET = {
    dist.CategoricalProbs: Link("probs", _ONE, (), _categorical),
    dist.MultinomialProbs: Link("probs", _ONE, (), _multinomial),
}
_GAMMA = {dist.Poisson: Link("rate", _ONE, (), _poisson), **_scales(_ONE)}

FAMILIES: dict[type[Distribution], Family] = {
    dist.Beta: Family(lambda d: (d.concentration1, d.concentration0), dist.Beta, _BETA, simplex=True),
    dist.Dirichlet: Family(lambda d: (d.concentration,), dist.Dirichlet, _DIRICHLET, simplex=True),
    dist.Exponential: Family(lambda d: (jnp.ones_like(d.rate), d.rate), dist.Gamma, _GAMMA, simplex=False),
    dist.Gamma: Family(lambda d: (d.concentration, d.rate), dist.Gamma, _GAMMA, simplex=False),
    dist.InverseGamma: Family(lambda d: (d.concentration, d.rate), dist.InverseGamma, _scales(-_ONE), simplex=False),
}
