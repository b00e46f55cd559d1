"""What several functions of the face ask of a model and a sampler."""

from __future__ import annotations

import secrets

import numpy as np

from ..samplers.base import AbstractSampler
from ..samplers.composition import AbstractComposition
from .model import BoundModel, Model


def check_model(owner: str, model: object) -> BoundModel:
    """The model, if it is one with its data.

    Raises:
        TypeError: naming the function and the remedy.
    """
    if isinstance(model, Model):
        raise TypeError(f"{owner}: '{model.name}' has no data yet; call it first: {owner}({model.name}(...)).")
    if not isinstance(model, BoundModel):
        raise TypeError(f"{owner}: expected a model with its data, got {model!r}; decorate a function with @model.")
    return model


def as_seed(owner: str, seed: object) -> int:
    """The seed, or a new one for None.

    Raises:
        ValueError: on what is none.
    """
    if seed is None:
        return secrets.randbits(32)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise ValueError(f"{owner}: seed must be a non-negative integer below 2**63 or None, got {seed!r}.")
    return int(seed)


def check_model_and_sampler(owner: str, model: object, sampler: object) -> None:
    """Refuse what is no model with data, and what is no sampler.

    Raises:
        TypeError: naming the function and the remedy.
    """
    check_model(owner, model)
    if not isinstance(sampler, (AbstractSampler, AbstractComposition)):
        hint = f"; write {sampler.__name__}()" if isinstance(sampler, type) else ""
        raise TypeError(f"{owner}: sampler must be one such as NUTS() or Gibbs({{...}}), got {sampler!r}{hint}.")
