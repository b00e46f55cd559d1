"""What a gradient was prepared for, and the refusal of anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .errors import PreparationError


@dataclass(frozen=True)
class Signature:
    """Structure, shapes and dtypes of the arguments of a function.

    Args:
        tree: the tree structure of the argument tuple.
        leaves: a path, shape and dtype for each array in it.
    """

    tree: jax.tree_util.PyTreeDef
    leaves: tuple[tuple[str, tuple[int, ...], str], ...]

    @classmethod
    def of(cls, x: Any, constants: tuple[Any, ...]) -> Signature:
        """The signature of a call `f(x, *constants)`."""
        paths, tree = jax.tree_util.tree_flatten_with_path((x, *constants))
        leaves = []
        for path, leaf in paths:
            argument = "x" if path[0].idx == 0 else f"constant {path[0].idx}"
            leaves.append((argument + jax.tree_util.keystr(path[1:]), jnp.shape(leaf), str(jnp.result_type(leaf))))
        return cls(tree, tuple(leaves))

    def check(self, other: Signature) -> None:
        """Raise PreparationError with a table of expected against got unless `other` is the same."""
        if self == other:
            return
        width = max(len(name) for name, *_ in (*self.leaves, *other.leaves, ("argument", (), "")))
        rows = [f"{'argument':<{width}}  {'expected':<20}  got"]
        expected = {name: f"{dtype}{list(shape)}" for name, shape, dtype in self.leaves}
        got = {name: f"{dtype}{list(shape)}" for name, shape, dtype in other.leaves}
        for name in (*expected, *(n for n in got if n not in expected)):
            left, right = expected.get(name, "-"), got.get(name, "-")
            rows.append(f"{name:<{width}}  {left:<20}  {right}{'' if left == right else '   <-- differs'}")
        table = "\n    ".join(rows)
        raise PreparationError(
            f"a gradient prepared for other arguments:\n    {table}\n"
            f"Call prepare_gradient again for arguments of the new structure, shapes and dtypes."
        )
