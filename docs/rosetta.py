"""Writes `docs/rosetta.md` from the models of `models/rosetta` and `tests/rosetta_numpyro.py`: python docs/rosetta.py.

A model's docstring "Title: sentence." gives heading and sentence; NumPyro's file gives the order. With a model goes
what it uses of its file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "rosetta.md"
OURS = tuple(sorted((ROOT / "models" / "rosetta").glob("*.py")))
THEIRS = ROOT / "tests" / "rosetta_numpyro.py"

INTRODUCTION = """\
# Rosetta: twenty models in dualtape and in NumPyro

The classic models of the tutorials of Turing, PyMC and NumPyro, each in both languages. They stand in `models/rosetta`
and can be imported from there. A test compares log densities and gradients, in forward and in reverse mode, at random
points: they agree within 1e-9 of themselves. This page is written by `python docs/rosetta.py`.

| dualtape | NumPyro |
|---|---|
| `@model` above `def f(data)`, then `f(data)` is a model with its data | `def f(data)`; the data go to the sampler |
| `rv("y", distribution, obs=y)` | `numpyro.sample("y", distribution, obs=y)` |
| `with plate("county", names):` labels the result | `with numpyro.plate("county", len(names)):` |
| `with plate("a", 2), plate("b", 3):` has shape (2, 3) | has shape (3, 2), unless `dim=` says otherwise |
| `scan("day", step, carry, xs)` names the dimension | `scan(step, carry, xs)` of `numpyro.contrib.control_flow` |
| `obs=` with NaN: the gaps are a site, `"y_missing"` | a site for the gaps, and `.at[gaps].set(...)` |
| `rv(..., dims="day")` | `az.from_numpyro(mcmc, dims={...})` |
| `deterministic(...)`, `factor(...)` | `numpyro.deterministic(...)`, `numpyro.factor(...)` |
| `idata = sample(f(data), seed=1)` | `mcmc = MCMC(NUTS(f), ...)`, `mcmc.run(key, data)`, `az.from_numpyro(mcmc)` |

All models of dualtape begin with

```python
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from dualtape import deterministic, factor, model, plate, rv, sample, scan
from jax import lax
from jax.scipy.special import logsumexp
```

and all models of NumPyro with

```python
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import logsumexp
from numpyro.contrib.control_flow import scan
```
"""


@dataclass(frozen=True)
class Source:
    """The functions of a file, by name."""

    text: str
    functions: dict[str, ast.FunctionDef]

    @classmethod
    def read(cls, path: Path) -> Source:
        """Take a file apart."""
        text = path.read_text(encoding="utf-8")
        return cls(text, {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)})

    def code(self, name: str) -> str:
        """A function, without its docstring, behind those of the same file that it calls."""
        node = self.functions[name]
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        lines = self.text.splitlines()[first - 1 : node.end_lineno]
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            del lines[docstring.lineno - first : (docstring.end_lineno or docstring.lineno) - first + 1]
        names = dict.fromkeys(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
        before = [self.code(other) for other in names if other in self.functions]
        return "\n\n\n".join([*before, "\n".join(lines)])


def sections() -> Iterator[str]:
    """The models, in the order of NumPyro's file."""
    theirs = Source.read(THEIRS)
    ours = {name: source for source in map(Source.read, OURS) for name in source.functions}
    for name in theirs.functions:
        function = ours[name].functions[name]
        if not function.decorator_list:
            continue  # no model, but what one calls
        title, _, sentence = (ast.get_docstring(function) or "").partition(": ")
        yield (
            f"## {title}\n\n{sentence[0].upper()}{sentence[1:]}\n\n"
            f"dualtape:\n\n```python\n{ours[name].code(name)}\n```\n\n"
            f"NumPyro:\n\n```python\n{theirs.code(name)}\n```\n"
        )


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *sections()])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
