"""What is sampled: data, a Stan program, and reference moments, for each model. Needs NumPy alone.

Posteriors of posteriordb are read in place, from the folder that the environment variable DUALTAPE_POSTERIORDB names
or else from `shared/posteriordb` beside the repository. Simulated ones are made from a seed.
"""

from __future__ import annotations

import abc
import functools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import simulated

HERE = Path(__file__).parent
POSTERIORDB = Path(os.environ.get("DUALTAPE_POSTERIORDB") or HERE.parents[2] / "shared" / "posteriordb")
REFERENCES = HERE / "references.json"

Data = dict[str, Any]
# By component, such as `theta[1]`: mean, sd, mcse_mean.
Reference = Mapping[str, Mapping[str, float]]


class AbstractSource(abc.ABC):
    """Where a model comes from."""

    @abc.abstractmethod
    def data(self) -> Data:
        """The data under Stan's names: numbers and NumPy arrays."""

    @abc.abstractmethod
    def stan(self) -> str:
        """The Stan program."""

    @abc.abstractmethod
    def reference(self) -> Reference:
        """Moments of every component of interest; the ESS that counts is the least over these."""


@dataclass(frozen=True)
class Posteriordb(AbstractSource):
    """A posterior of posteriordb.

    Args:
        posterior: its name there.
    """

    posterior: str

    def _read(self, file: str) -> str:
        path = POSTERIORDB / self.posterior / file
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path}: set DUALTAPE_POSTERIORDB to the folder of reference posteriors, or choose simulated "
                f"models with --models."
            )
        return path.read_text()

    def data(self) -> Data:
        """As in data.json, lists as arrays."""
        raw = json.loads(self._read("data.json"))
        return {name: np.array(value) if isinstance(value, list) else value for name, value in raw.items()}

    def stan(self) -> str:
        """As in model.stan."""
        return self._read("model.stan")

    def reference(self) -> Reference:
        """As in reference.json."""
        components: Reference = json.loads(self._read("reference.json"))["components"]
        return components

    def points(self) -> list[dict[str, Any]]:
        """Log densities at points, where the reference has them: `unconstrained`, `logp`, `log_jacobian`."""
        found: list[dict[str, Any]] = json.loads(self._read("reference.json")).get("log_density", {}).get("points", [])
        return found


@dataclass(frozen=True)
class Simulated(AbstractSource):
    """A model on simulated data, always the same ones.

    Args:
        program: the file of its Stan program, without the ending.
        generate: makes the data.
    """

    program: str
    generate: Callable[[], Data]

    def data(self) -> Data:
        """Made from a seed."""
        return self.generate()

    def stan(self) -> str:
        """From the folder `stan`."""
        return (HERE / "stan" / f"{self.program}.stan").read_text()

    def reference(self) -> Reference:
        """From a long run; `references.json` says of what."""
        if not REFERENCES.is_file():
            raise FileNotFoundError(f"no {REFERENCES}: make it with python -m benchmarks.peers.reference.")
        components: Reference = json.loads(REFERENCES.read_text())[self.program]["components"]
        return components


@dataclass(frozen=True)
class Problem:
    """One row of the benchmark.

    Args:
        name: under which every library's transcription is found.
        title: for the table, with the number of unconstrained parameters.
        source: data, Stan program, reference.
        note: what to know when reading its figures.
    """

    name: str
    title: str
    source: AbstractSource
    note: str = ""

    @functools.cached_property
    def data(self) -> Data:
        """The data under Stan's names."""
        return self.source.data()

    @functools.cached_property
    def reference(self) -> Reference:
        """Moments of every component of interest."""
        return self.source.reference()


PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        Problem(
            "eight_schools", "eight schools, non-centred (10)", Posteriordb("eight_schools-eight_schools_noncentered")
        ),
        Problem("kidiq", "kidiq, linear regression with interaction (5)", Posteriordb("kidiq-kidscore_interaction")),
        Problem("sblrc", "linear regression, correlated design (6)", Posteriordb("sblrc-blr")),
        Problem("arK", "AR(5) (7)", Posteriordb("arK-arK")),
        Problem("garch", "GARCH(1,1) (4)", Posteriordb("garch-garch11")),
        Problem("gauss_mix", "normal mixture (5)", Posteriordb("low_dim_gauss_mix-low_dim_gauss_mix")),
        Problem("dogs", "dogs, logistic regression (3)", Posteriordb("dogs-dogs")),
        Problem("hmm", "hidden Markov model (4)", Posteriordb("hmm_example-hmm_example")),
        Problem(
            "lotka_volterra",
            "Lotka-Volterra, ODE (8)",
            Posteriordb("hudson_lynx_hare-lotka_volterra"),
            "Stan integrates adaptively, to the tolerances of its program; the others with fixed steps.",
        ),
        Problem("gp_regr", "GP regression (3)", Posteriordb("gp_pois_regr-gp_regr")),
        Problem("gp_pois", "GP Poisson regression, latent (13)", Posteriordb("gp_pois_regr-gp_pois_regr")),
        Problem(
            "brownian",
            "Brownian motion, missing middle (32)",
            Posteriordb("ig_brownian_motion_unknown_scales_missing_middle_observations"),
        ),
        Problem("radon", "radon, hierarchical, centred (91)", Posteriordb("ig_radon_contextual_effects_minnesota")),
        Problem("lgcp", "log-Gaussian Cox process (102)", Posteriordb("ig_synthetic_log_gaussian_cox_process")),
        Problem("logistic", "Bernoulli-logit, 10,000 × 50 (51)", Simulated("logistic", simulated.logistic)),
        Problem(
            "volatility",
            "stochastic volatility, T = 500 (503)",
            Simulated("stochastic_volatility", simulated.stochastic_volatility),
        ),
        Problem("irt", "item response, 400 × 48 (500)", Simulated("item_response", simulated.item_response)),
    )
}


def component_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """Stan's names of the entries of an array: `theta[1]`, `theta[2]`, ...; the name itself of a number."""
    if not shape:
        return [name]
    return [f"{name}[{','.join(str(i + 1) for i in index)}]" for index in np.ndindex(*shape)]
