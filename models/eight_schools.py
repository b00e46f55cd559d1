"""Eight schools: the effects of coaching on test scores, in parallel experiments of different precision.

Data and model: Rubin (1981), "Estimation in parallel randomized experiments", Journal of Educational Statistics
6(4); the priors are those of Gelman et al. (2013), "Bayesian Data Analysis", third edition, section 5.5, as in
posteriordb.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpyro.distributions as dist

from ..ppl import deterministic, model, plate, rv

SCHOOLS = ("A", "B", "C", "D", "E", "F", "G", "H")
Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])  # estimated effect in each school, points
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])  # its standard error, points


@model
def eight_schools_centered(y: Any, sigma: Any) -> None:
    """The effects as they are; a funnel where tau is small, and hard to sample there.

    Args:
        y: estimated effects, shape (schools,).
        sigma: their standard errors, shape (schools,).
    """
    mu = rv("mu", dist.Normal(0.0, 5.0))
    tau = rv("tau", dist.HalfCauchy(5.0))
    with plate("school", SCHOOLS):
        theta = rv("theta", dist.Normal(mu, tau))
        rv("y", dist.Normal(theta, sigma), obs=y)


@model
def eight_schools_noncentered(y: Any, sigma: Any) -> None:
    """The effects as mu + tau z with standard normal z; the form to use with data as weak as these.

    Args:
        y: estimated effects, shape (schools,).
        sigma: their standard errors, shape (schools,).
    """
    mu = rv("mu", dist.Normal(0.0, 5.0))
    tau = rv("tau", dist.HalfCauchy(5.0))
    with plate("school", SCHOOLS):
        z = rv("z", dist.Normal(0.0, 1.0))
        theta = deterministic("theta", mu + tau * z)
        rv("y", dist.Normal(theta, sigma), obs=y)
