"""Exact draws: every step is the target's own draw, and what users pass is refused by name where it is no function.

Each statistical test has the false-alarm rate ALPHA; two run, with fixed seeds.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from dualtape.samplers.exact import Conditional, Conjugate
from dualtape.samplers.random import chain_key, fold_in, normal
from targets import p_value

ALPHA = 1e-3
CERTAIN = 1e-9  # what the p-value of a planted bug must fall below
DEVIATIONS = np.array([0.5, 2.0])
MEAN = np.array([3.0, -1.0])


@dataclass(frozen=True)
class Drawable:
    """Independent normals around a constant; satisfies `samplers.base.ExactTarget`."""

    stretch: float = 1.0
    sites = ("a", "b")
    discrete = ()
    dimension = 2
    constants = (jax.ShapeDtypeStruct((2,), np.float64),)
    signature = None

    def draw(self, key, mean):
        return mean + self.stretch * jnp.asarray(DEVIATIONS, mean.dtype) * normal(key, 2, mean.dtype)

    def log_density(self, q, mean):
        return -0.5 * jnp.sum(((q - mean) / DEVIATIONS) ** 2)


def known(values):
    return dist.Normal(values["x"], 1.0)


SAMPLERS = [Conjugate(), Conditional(known)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_every_step_is_a_draw_of_the_target(sampler):
    target = Drawable()
    kernel = sampler.build(target, np.float64)
    key, constants = jnp.asarray(chain_key(0, 0)), (jnp.asarray(MEAN),)
    for start in ([0.0, 0.0], [50.0, np.nan]):
        state = kernel.init(jnp.asarray(start), constants)
        np.testing.assert_array_equal(kernel.position(state), start)
        state, info = kernel.step(key, state, kernel.init_tuning(), constants)
        np.testing.assert_array_equal(kernel.position(state), target.draw(key, *constants))
        assert kernel.statistics(info) == {"lp": target.log_density(kernel.position(state), *constants)}
    assert kernel.schedule(1000) == kernel.init_tuning() == ()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("stretch", [1.0, 1.1], ids=["exact", "stretched draws planted"])
def test_one_step_has_the_law_of_the_target(sampler, stretch):
    kernel = sampler.build(Drawable(stretch), np.float64)
    constants = (jnp.asarray(MEAN),)
    state = kernel.init(jnp.zeros(2), constants)
    keys = jax.vmap(lambda i: fold_in(chain_key(1, 0), i))(jnp.arange(8000, dtype=jnp.int32))
    ends = jax.jit(jax.vmap(lambda key: kernel.position(kernel.step(key, state, (), constants)[0])))(keys)
    found = p_value((np.asarray(ends) - MEAN) / DEVIATIONS)
    assert found > ALPHA if stretch == 1.0 else found < CERTAIN


class Asked:
    """A block that says what it was asked for."""

    def drawn_by(self, function, *, verify):
        return function, verify

    def conjugate(self):
        return "conjugate"


@pytest.mark.parametrize(
    ("sampler", "answer"),
    [
        (Conditional(known), (known, True)),
        (Conditional(known, verify=False), (known, False)),
        (Conjugate(), "conjugate"),
    ],
)
def test_the_block_is_asked_for_draws(sampler, answer):
    assert sampler.view(Asked()) == answer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((dist.Normal(0.0, 1.0),), r"fn must be a function .* got .*; write Conditional\(lambda values: dist"),
        ((dist.Normal,), r"fn must be a function .* got .*; write"),
        (("m",), r"fn must be a function .* got 'm'; write"),
        ((known, "no"), r"verify must be True or False, got 'no'"),
    ],
)
def test_what_is_no_function_is_refused(arguments, message):
    with pytest.raises(TypeError, match=f"Conditional: {message}"):
        Conditional(*arguments)


@pytest.mark.parametrize(
    ("sampler", "name", "reason"),
    [
        (Conditional(known), "Conditional(fn=known)", "exact: draws from the conditional that was given"),
        (Conditional(known, verify=False), "Conditional(fn=known, verify=False)", "exact: draws from the conditional"),
        (Conditional(lambda values: known(values)), "Conditional(fn=<lambda>)", "exact: draws from the conditional"),
        (Conjugate(), "Conjugate()", "exact: draws from the conjugate conditional"),
    ],
    ids=lambda value: str(value),
)
def test_the_report_says_where_draws_come_from(sampler, name, reason):
    (report,) = sampler.build(Drawable(), np.float64).reports
    assert (report.block, report.sampler, report.dimension, report.adtype) == ("a,b", name, 2, None)
    assert report.reason.startswith(reason)
