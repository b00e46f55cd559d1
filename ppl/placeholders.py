"""When plain Python looks at the value of a random variable: what the user sees of it."""

from __future__ import annotations

import linecache
import re
from collections.abc import Mapping
from typing import Any

import jax

from ..ad.errors import place, place_of

# What JAX and NumPyro say where a model is wrong, without saying where, and what is to be done.
_HINTS = (
    (
        "Indexer must have integer or boolean type",
        "indices are whole numbers that count from 0; of labels they are numpy.unique(labels, return_inverse=True)[1], "
        "of a categorical column of pandas its .cat.codes",
    ),
    (
        "BoundModel",
        "a model inside of another one is declared: submodel('name', other(...)) runs it and gives its value",
    ),
    (
        "Shapes must be 1D sequences of concrete values",
        "a shape cannot depend on a random variable; make it as large as it can get, and mask what is not meant",
    ),
    ("distribution got invalid", "give the distribution parameters that it allows"),
    (
        "is not a valid JAX array type",
        "give the model arrays of numbers; text is for the labels of plates",
    ),
    ("as an abstract array. The problematic value is of type", "give the model arrays of numbers; text is for labels"),
    ("incompatible shapes for broadcasting", "look at the shapes of what is combined there, and at their order"),
)

_NAME = re.compile(r"[^\W\d]\w*")


class TracingError(TypeError):
    """A model that needs the value of a random variable where there is only a placeholder for it."""


def looked_at(error: BaseException, model: str, values: Mapping[str, Any]) -> str:
    """What was looked at, where, and the ways out.

    Args:
        error: what JAX raised.
        model: its name.
        values: of the latent sites that were declared before, by name.
    """
    return (
        f"model '{model}' looks at the value of {_subject(error, values)}{place(error)}. A model is traced once, with "
        f"placeholders for its random variables: use jnp.where or jax.lax.cond for `if`, jax.lax.while_loop for "
        f"`while`, functions of jax.numpy in place of those of numpy and math, and leave out float() and int(). Where "
        f"only an `if` or `while` looks at a value, adtype=AutoTape() runs the model anew at numbers (slow)."
    )


def _subject(error: BaseException, values: Mapping[str, Any]) -> str:
    """The sites, or else the variables, on the line in question that are placeholders."""
    found = place_of(error)
    if found is None:
        return "a random variable"
    frame, line = found
    names = dict.fromkeys(_NAME.findall(linecache.getline(frame.f_code.co_filename, line)))
    local = {name: frame.f_locals[name] for name in names if name in frame.f_locals}
    placeholders = {name: value for name, value in local.items() if isinstance(value, jax.core.Tracer)}
    sites = [site for site, value in values.items() if any(value is other for other in placeholders.values())]
    if sites:
        return " and ".join(f"site '{site}'" for site in sites)
    if placeholders:
        return " and ".join(f"`{name}`" for name in placeholders) + ", which random variables determine"
    return "a random variable"


def hint(error: BaseException, model: str) -> str | None:
    """Where in a model something went wrong, and what to do; None where nothing is known of it."""
    for fragment, remedy in _HINTS:
        if fragment in str(error):
            return f"model '{model}'{place(error)}: {remedy}."
    return None
