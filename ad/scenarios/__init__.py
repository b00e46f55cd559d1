"""A catalogue of gradient scenarios, shared by tests, benchmarks and `python -m dualtape.ad`."""

from .scenario import Scenario

__all__ = ["Scenario"]
