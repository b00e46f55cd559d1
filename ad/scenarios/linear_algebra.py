"""Linear algebra: factorisations, solves, determinants and spectra."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve, expm, solve_triangular

from .scenario import Scenario, exact

Array = jax.Array


def cholesky_entry(x: Array) -> Any:
    """The last entry of the Cholesky factor of XX' + I."""
    return jnp.linalg.cholesky(x @ x.T + jnp.eye(len(x), dtype=x.dtype))[-1, -1]


def log_determinant(x: Array) -> Any:
    """The log of |det X|, whose gradient is the transposed inverse."""
    return jnp.linalg.slogdet(x)[1]


def determinant(x: Array) -> Any:
    """The determinant, whose gradient is the matrix of cofactors."""
    return jnp.linalg.det(x)


def solve(x: Array, A: Array, w: Array) -> Any:
    """w'A⁻¹x."""
    return w @ jnp.linalg.solve(A, x)


def solve_matrix(x: Array, b: Array, w: Array) -> Any:
    """w'X⁻¹b."""
    return w @ jnp.linalg.solve(x, b)


def inverse(x: Array) -> Array:
    """The sum of the entries of X⁻¹."""
    return jnp.sum(jnp.linalg.inv(x))


def triangular_solve(x: Array, b: Array) -> Array:
    """|L⁻¹b|² + |L⁻ᵀb|² with L the lower triangle of a matrix with a safe diagonal."""
    L = jnp.tril(x, -1) + jnp.diag(jnp.exp(jnp.diag(x)))
    return jnp.sum(solve_triangular(L, b, lower=True) ** 2) + jnp.sum(solve_triangular(L, b, lower=True, trans=1) ** 2)


def gaussian_process(x: Array, t: Array, y: Array) -> Array:
    """The marginal likelihood of a Gaussian process: log amplitude, log length, log noise."""
    amplitude, length, noise = jnp.exp(x)
    K = amplitude**2 * jnp.exp(-0.5 * ((t[:, None] - t) / length) ** 2) + noise**2 * jnp.eye(t.size, dtype=t.dtype)
    L, lower = cho_factor(K, lower=True)
    return -0.5 * y @ cho_solve((L, lower), y) - jnp.sum(jnp.log(jnp.diag(L)))


def multivariate_normal(p: dict[str, Array], y: Array) -> Array:
    """Rows y ~ N(mean, LL') with L from a vector: log diagonal, then the entries below it."""
    mean, raw = p["mean"], p["raw"]
    size = mean.size
    L = jnp.diag(jnp.exp(raw[:size])).at[jnp.tril_indices(size, -1)].set(raw[size:])
    z = solve_triangular(L, (y - mean).T, lower=True)
    return -0.5 * jnp.sum(z**2) - len(y) * jnp.sum(raw[:size])


def lkj(x: Array, y: Array) -> Array:
    """A correlation matrix of four from six partial correlations, LKJ(2) and a normal likelihood.

    Source: Lewandowski, Kurowicka and Joe (2009).
    """
    size = 4
    z = jnp.zeros((size, size), x.dtype).at[jnp.tril_indices(size, -1)].set(jnp.tanh(x))
    left = jnp.cumprod(jnp.sqrt(1.0 - z**2), axis=1)
    before = jnp.concatenate([jnp.ones((size, 1), x.dtype), left[:, :-1]], axis=1)
    L = jnp.tril((z + jnp.eye(size, dtype=x.dtype)) * before)
    solved = solve_triangular(L, y.T, lower=True)
    log_diagonal = jnp.log(jnp.diag(L))
    prior = jnp.sum(jnp.arange(size - 1.0, -1.0, -1.0, dtype=x.dtype) * log_diagonal) + 2.0 * jnp.sum(log_diagonal)
    return prior - 0.5 * jnp.sum(solved**2) - len(y) * jnp.sum(log_diagonal)


def symmetric(x: Array) -> Array:
    """X + X' + diag(0, 3, 6, ...): symmetric, its eigenvalues apart."""
    return x + x.T + jnp.diag(3.0 * jnp.arange(len(x), dtype=x.dtype))


def eigenvalues(x: Array) -> Array:
    """The weighted sum of the squared eigenvalues of a symmetric matrix."""
    return jnp.sum(jnp.arange(1.0, 1.0 + len(x), dtype=x.dtype) * jnp.linalg.eigvalsh(symmetric(x)) ** 2)


def eigenvectors(x: Array, b: Array) -> Any:
    """Entries of the projector on the first eigenvector, which knows no sign."""
    _, vectors = jnp.linalg.eigh(symmetric(x))
    return (b @ vectors[:, 0]) ** 2


def eigenvalue_trace(x: Array) -> Array:
    """The sum of the eigenvalues, which is the trace."""
    return jnp.sum(jnp.linalg.eigvalsh(symmetric(x)))


def singular_values(x: Array) -> Array:
    """The nuclear norm of a matrix of full rank: its gradient is UV'."""
    return jnp.sum(jnp.linalg.svd(x, compute_uv=False))


def qr_diagonal(x: Array) -> Array:
    """The log of |det X| through the diagonal of R."""
    return jnp.sum(jnp.log(jnp.abs(jnp.diag(jnp.linalg.qr(x)[1]))))


def matrix_exponential(x: Array, v: Array) -> Any:
    """The quadratic form v' expm(X) v."""
    return v @ expm(x) @ v


def contractions(x: Array, T: Array) -> Array:
    """einsum, kron, matrix power and trace of products."""
    product = jnp.einsum("ij,jkl,lk->i", x, T, x[:, :2])
    return jnp.sum(product**2) + jnp.sum(jnp.kron(x, x)[:4]) + jnp.trace(jnp.linalg.matrix_power(x, 3))


def fourier(x: Array) -> Array:
    """The energy in the Fourier coefficients, which is n|x|² (Parseval); complex numbers inside."""
    return jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 2)


def scenarios() -> tuple[Scenario, ...]:
    """The scenarios of this family."""
    rng = np.random.default_rng(5)

    def one(
        name: str, f: Any, x: Any, special: str, *constants: Any, elsewhere: Any = None, **expected: Any
    ) -> Scenario:
        elsewhere = jax.tree.map(np.zeros_like, x) if elsewhere is None else elsewhere
        return Scenario(name, "linear algebra", f, x, elsewhere, special, constants, **expected)

    square = exact(rng.normal(size=(4, 4)) + 3.0 * np.eye(4))
    inverted, eye = np.linalg.inv(square), np.eye(4)
    b, w = exact(rng.normal(size=(2, 4)))
    rough = exact(rng.normal(size=(4, 4)))
    tall = exact(rng.normal(size=(5, 3)))
    u, _, vt = np.linalg.svd(tall, full_matrices=False)
    t = exact(np.linspace(0.0, 2.0, 20))
    mvn = {"mean": exact(rng.normal(size=3)), "raw": exact(0.5 * rng.normal(size=6))}
    x7 = exact(rng.normal(size=7))
    of_inverse = -inverted.T @ np.ones((4, 4)) @ inverted.T
    pulled = -np.outer(inverted.T @ w, inverted @ b)
    det = np.linalg.det(square)
    return (
        one("cholesky", cholesky_entry, rough, "cholesky"),
        one("log determinant", log_determinant, square, "lu", elsewhere=eye, gradient=inverted.T),
        one("determinant", determinant, square, "a custom rule", elsewhere=eye, value=det, gradient=det * inverted.T),
        one("solve", solve, b, "linear in x", square, w, gradient=inverted.T @ w),
        one("solve with x", solve_matrix, square, "a matrix as x", b, w, elsewhere=eye, gradient=pulled),
        one("inverse", inverse, square, "solves with the identity", elsewhere=eye, gradient=of_inverse),
        one("triangular solve", triangular_solve, 0.5 * rough, "both triangles", b),
        one(
            "gaussian process",
            gaussian_process,
            exact([0.25, -0.5, -1.0]),
            "3 parameters, 20 x 20",
            t,
            exact(np.sin(3 * t)),
        ),
        one(
            "multivariate normal",
            multivariate_normal,
            mvn,
            "a scatter into a triangle",
            exact(rng.normal(size=(20, 3))),
        ),
        one("lkj correlation", lkj, exact(0.5 * rng.normal(size=6)), "cumprod", exact(rng.normal(size=(12, 4)))),
        one("eigenvalues", eigenvalues, 0.25 * rough, "eigh"),
        one("eigenvectors", eigenvectors, 0.25 * rough, "eigh, up to the sign", b),
        one("eigenvalue trace", eigenvalue_trace, 0.25 * rough, "terms that cancel", value=None, gradient=2 * eye),
        one("singular values", singular_values, tall, "svd", elsewhere=np.eye(5, 3), gradient=u @ vt),
        one("qr", qr_diagonal, square, "qr", elsewhere=eye, gradient=inverted.T),
        one("matrix exponential", matrix_exponential, 0.5 * rough, "scaling and squaring", b),
        one("contractions", contractions, rough, "einsum and kron", exact(rng.normal(size=(4, 2, 4)))),
        one("fourier", fourier, x7, "complex numbers inside", value=7.0 * x7 @ x7, gradient=14.0 * x7),
    )
