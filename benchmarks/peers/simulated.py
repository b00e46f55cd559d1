"""Data that are simulated from a seed, under the names of the Stan programs in `stan/`."""

from __future__ import annotations

from typing import Any

import numpy as np

Data = dict[str, Any]


def _sigmoid(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return 1.0 / (1.0 + np.exp(-x))


def logistic(rows: int = 10_000, columns: int = 50) -> Data:
    """A Bernoulli-logit regression whose predictors are correlated: neighbours by a half.

    y_n ~ Bernoulli(σ(α + X_n β)), with α, β_d ~ Normal(0, 1).

    Returns:
        N, D, X of shape (rows, columns), y of shape (rows,).
    """
    rng = np.random.default_rng(20261)
    X = rng.normal(size=(rows, columns))
    for d in range(1, columns):
        X[:, d] = 0.5 * X[:, d - 1] + np.sqrt(0.75) * X[:, d]
    beta = rng.normal(size=columns) / np.sqrt(columns)
    y = rng.uniform(size=rows) < _sigmoid(0.5 + X @ beta)
    return {"N": rows, "D": columns, "X": X, "y": y.astype(int)}


def stochastic_volatility(length: int = 500, mu: float = -1.0, phi: float = 0.95, sigma: float = 0.25) -> Data:
    """Returns whose log variance h is an AR(1) process.

    h_1 ~ Normal(μ, σ / √(1 − φ²)), h_t ~ Normal(μ + φ (h_{t−1} − μ), σ), y_t ~ Normal(0, exp(h_t / 2)).

    Returns:
        T, y of shape (length,).
    """
    rng = np.random.default_rng(20262)
    h = mu + sigma / np.sqrt(1.0 - phi**2) * rng.normal()
    y = np.empty(length)
    for t in range(length):
        y[t] = np.exp(h / 2.0) * rng.normal()
        h = mu + phi * (h - mu) + sigma * rng.normal()
    return {"T": length, "y": y}


def item_response(persons: int = 400, items: int = 48) -> Data:
    """Answers under the two-parameter logistic model; all persons answer all items.

    y_ij ~ Bernoulli(σ(a_i (θ_j − b_i))), with θ_j ~ Normal(0, σ_θ), a_i ~ LogNormal(0, σ_a), b_i ~ Normal(μ_b, σ_b).

    Returns:
        I, J, y of shape (items, persons). 500 parameters for the default sizes.
    """
    rng = np.random.default_rng(20263)
    theta = rng.normal(0.0, 1.2, persons)
    a = np.exp(rng.normal(0.0, 0.4, items))
    b = rng.normal(0.3, 1.0, items)
    y = rng.uniform(size=(items, persons)) < _sigmoid(a[:, None] * (theta - b[:, None]))
    return {"I": items, "J": persons, "y": y.astype(int)}
