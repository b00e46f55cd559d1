"""NumPyro model functions, used as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..model import BoundModel, Model
from .refusal import taking_turns
from .translation import Translation


def from_numpyro(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> BoundModel:
    """A NumPyro model function as a model: all that works on a model works on it.

    The function runs as it is, and its log density is NumPyro's own, term by term:

        log π(q) = Σ_sites scale · mask · log p(site | others) + Σ_latents log |det ∂T/∂q| + Σ_factors.

    Sites keep their names, and plates give the dimensions of the result theirs. Handlers around or inside the function
    keep their meaning: `condition`, `substitute`, `do`, `seed`, `block`, `scope`, `mask`, `scale`, `reparam`, `lift`,
    `infer_config`. `contrib.control_flow.scan` becomes the loop of the language, whose dimension is called `scan`.
    What is different from NumPyro: discrete latent sites stay, for `DiscreteGibbs`, where NumPyro sums them out;
    observed values that are NaN and not masked are missing.

    Args:
        fn: made of the primitives of `numpyro`.
        *args: what it is called with: its data.
        **kwargs: likewise, by name.

    Returns:
        A model with its data, to be conditioned and fixed by the names of its sites.

    Raises:
        TypeError: if `fn` is not a function or does not take the arguments.
        NotImplementedError: when the model runs, at what has no fixed log density or no translation: subsampling,
            `param`, `mutable`, `prng_key` without `seed`, `cond`; naming it, with the way out.

    Example:
        >>> def schools(sigma, y):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 5))
        ...     tau = numpyro.sample("tau", dist.HalfCauchy(5))
        ...     with numpyro.plate("school", len(y)):
        ...         theta = numpyro.sample("theta", dist.Normal(mu, tau))
        ...         numpyro.sample("y", dist.Normal(theta, sigma), obs=y)
        >>> idata = sample(from_numpyro(schools, sigma, y=y))

    Source: Phan, Pradhan, Jankowiak (2019), "Composable effects for flexible and accelerated probabilistic programming
    in NumPyro".
    """
    if not callable(fn):
        raise TypeError(f"from_numpyro: expected a function made of numpyro.sample and its like, got {fn!r}.")
    return NumPyroModel(fn)(*args, **kwargs)


class NumPyroModel(Model):
    """The model behind `from_numpyro`.

    Args:
        fn: made of the primitives of `numpyro`.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        @functools.wraps(fn)
        def translated(*args: Any, **kwargs: Any) -> Any:
            with taking_turns, Translation():
                return fn(*args, **kwargs)

        self.fn = fn
        super().__init__(translated)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the function."""
        return type(self), (self.fn,)
