"""Hand-written log densities, in plain JAX: what BlackJAX and NumPyro (`potential_fn`) sample on their best terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..transforms import Density
from .hierarchical import brownian, eight_schools, item_response, radon
from .processes import gp_poisson, gp_regression, log_gaussian_cox
from .regressions import autoregression, dogs, gaussian_mixture, kidiq, linear_regression, logistic
from .series import garch, hidden_markov, lotka_volterra, stochastic_volatility

DENSITIES: dict[str, Callable[[dict[str, Any]], Density]] = {
    "eight_schools": eight_schools,
    "kidiq": kidiq,
    "sblrc": linear_regression,
    "arK": autoregression,
    "garch": garch,
    "gauss_mix": gaussian_mixture,
    "dogs": dogs,
    "hmm": hidden_markov,
    "lotka_volterra": lotka_volterra,
    "gp_regr": gp_regression,
    "gp_pois": gp_poisson,
    "brownian": brownian,
    "radon": radon,
    "lgcp": log_gaussian_cox,
    "logistic": logistic,
    "volatility": stochastic_volatility,
    "irt": item_response,
}
