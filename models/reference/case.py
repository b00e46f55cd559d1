"""What is known of a reference posterior beside its model: its data, its coordinates, the names of its components."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...ppl.model import BoundModel, Model

REFERENCE_SET = Path(
    os.environ.get("DUALTAPE_POSTERIORDB") or Path(__file__).resolve().parents[3] / "shared" / "posteriordb"
)


def _unchanged(coordinates: Any) -> Any:
    return coordinates


@dataclass(frozen=True)
class Case:
    """A model with what its reference posterior asks for.

    Args:
        name: of the reference posterior.
        model: the same in this library. Names of variables are Stan's.
        arguments: of the model, from the reference data.
        parameters: the latent sites in the order of Stan's unconstrained coordinates.
        constant: the logarithm of what this density has as a factor and that of the Stan program has not: where a
            prior is cut off, the mass that is left of it.
        coordinates: unconstrained coordinates here, in the order of `parameters`, from those of Stan, shape
            (dimension,); a function on `jax.numpy`.
    """

    name: str
    model: Model
    arguments: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    parameters: tuple[str, ...]
    constant: float = 0.0
    coordinates: Callable[[Any], Any] = _unchanged

    def bind(self) -> BoundModel:
        """The model with the reference data.

        Raises:
            FileNotFoundError: where the reference set is absent.
        """
        return self.model(*self.arguments(self.read("data")))

    def read(self, file: str) -> dict[str, Any]:
        """A file of this posterior: `data` or `reference`.

        Raises:
            FileNotFoundError: where the reference set is absent.
        """
        path = REFERENCE_SET / self.name / f"{file}.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.name}: no file {path}; set the environment variable DUALTAPE_POSTERIORDB to the folder of the "
                f"reference posteriors."
            )
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def components(posterior: Any) -> dict[str, Any]:
    """The draws under Stan's names, `theta[1]` and so on.

    Args:
        posterior: the group of an ArviZ object, of scalar and vector variables.

    Returns:
        By component, an array of shape (chains, draws).
    """
    found = {}
    for name, variable in posterior.data_vars.items():
        values = variable.values
        if values.ndim == 2:
            found[name] = values
        else:
            found |= {f"{name}[{i + 1}]": values[..., i] for i in range(values.shape[-1])}
    return found
