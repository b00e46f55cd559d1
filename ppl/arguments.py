"""What several functions of the face ask of a model and a sampler."""

from __future__ import annotations

from ..samplers.base import AbstractSampler
from ..samplers.composition import AbstractComposition
from .model import BoundModel, Model


def check_model_and_sampler(owner: str, model: object, sampler: object) -> None:
    """Refuse what is no model with data, and what is no sampler.

    Raises:
        TypeError: naming the function and the remedy.
    """
    if isinstance(model, Model):
        raise TypeError(f"{owner}: '{model.name}' has no data yet; call it first: {owner}({model.name}(...)).")
    if not isinstance(model, BoundModel):
        raise TypeError(f"{owner}: expected a model with its data, got {model!r}; decorate a function with @model.")
    if not isinstance(sampler, (AbstractSampler, AbstractComposition)):
        hint = f"; write {sampler.__name__}()" if isinstance(sampler, type) else ""
        raise TypeError(f"{owner}: sampler must be one such as NUTS() or Gibbs({{...}}), got {sampler!r}{hint}.")
