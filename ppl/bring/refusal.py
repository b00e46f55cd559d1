"""NumPyro's primitives where they have no meaning: in a function decorated with `@model`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpyro.primitives import Messenger

# NumPyro's stack of handlers is one for all threads.
taking_turns = threading.RLock()


class Refusal(Messenger):  # type: ignore[misc]
    """A handler that lets no primitive pass.

    Args:
        model: the name of the model, for messages.

    Raises:
        RuntimeError: at the first primitive; naming it, with the way out.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def process_message(self, msg: dict[str, Any]) -> None:
        """Say what to write instead."""
        word, name = msg["type"], msg.get("name", "")
        raise RuntimeError(
            f"model '{self.model}': numpyro.{word}('{name}', ...) has no meaning in a function decorated with @model; "
            f"write {'rv' if word == 'sample' else word}('{name}', ...) of dualtape there, or leave the decorator out "
            f"and pass the function to from_numpyro({self.model}, ...)."
        )


@contextmanager
def refusing_numpyro(model: str) -> Iterator[None]:
    """Refuse NumPyro's primitives inside a `with` block, unless a handler in it takes them.

    NumPyro itself would return the value of an observed site and forget its term.
    """
    with taking_turns, Refusal(model):
        yield
