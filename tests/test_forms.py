"""How results of a program depend on variables: read off their equations, and never more than they show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape.ppl.programs.program import Program
from dualtape.ppl.views.forms import Affine, Monomial, Other, forms

GROUP = np.array([2, 0, 1, 2])
ONE = Monomial()
FORMS = [
    (lambda v: v[GROUP], ONE),
    (lambda v: jnp.stack([v, v[::-1]]).T.reshape(-1)[1:3], ONE),
    (lambda v: jnp.float32(v), ONE),
    (lambda v: 2.0 * v, Monomial(by="mul")),
    (lambda v: -v[None], Monomial(by="neg")),
    (lambda v: v + 1.0, Affine(True, "add")),
    (lambda v: jnp.pad(v, 1), Affine(True, "pad")),
    (lambda v: v.at[0].set(1.0), Affine(True, "scatter")),
    (lambda v: v.at[np.array([5])].get(mode="fill", fill_value=1.0), Affine(True, "gather")),
    (lambda v: v - v[0], Affine(False, "sub")),
    (lambda v: jnp.sum(v), Affine(False, "reduce_sum")),
    (lambda v: jnp.diff(3.0 * v + 1.0), Affine(False, "add")),
    (lambda v: jnp.zeros(3).at[np.array([0, 0, 1])].add(v), Affine(False, "scatter-add")),
    (lambda v: v @ v, Other("dot_general")),
    (lambda v: jnp.sort(v), Other("sort")),
    (lambda v: jnp.maximum(v, 0.0), Other("max")),
    (lambda v: jax.lax.scan(lambda c, x: (c + x, c), 0.0, v)[1], Other("scan")),
    (lambda v: jax.nn.relu(v), Other("custom_jvp_call")),
    (lambda v: v.astype(int) * 1.0, Other("convert_element_type")),
    (lambda v: 3.0, None),
]


@pytest.mark.parametrize(("function", "form"), FORMS, ids=[str(form) + str(i) for i, (_, form) in enumerate(FORMS)])
def test_forms(function, form):
    program, consts, _ = Program.trace(function, jnp.arange(1.0, 4.0))
    variable = program.inputs[len(consts)]
    assert forms(program, {variable: ONE}, positive=False, alone=False) == [form]


@pytest.mark.parametrize(
    ("function", "positive"),
    [(lambda v: jnp.sqrt(v**2), 1), (jnp.abs, 1), (lambda v: 1 / (1 / v), 1), (lambda v: jnp.cbrt(v**3.0), 1)],
)
def test_powers_are_followed_only_where_values_are_positive(function, positive):
    program, _, _ = Program.trace(function, jnp.ones(3))
    (form,) = forms(program, {program.inputs[0]: ONE}, positive=True, alone=False)
    assert isinstance(form, Monomial)
    assert abs(form.exponent - positive) < 1e-12
    (form,) = forms(program, {program.inputs[0]: ONE}, positive=False, alone=False)
    assert isinstance(form, Other)
