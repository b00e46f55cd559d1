"""What a result says of itself, whatever made it: the attributes and names of dimensions of an ArviZ object."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .log_density import TracedModel
from .trace import Trace


def common_attributes(model: str, reports: Sequence[Any], packages: Sequence[str]) -> dict[str, Any]:
    """The model, its blocks with their adtypes, the moment, and the versions of packages.

    Args:
        model: its name.
        reports: of the blocks, as kernels give them.
        packages: names.
    """
    blocks = {
        report.block: {
            "sampler": report.sampler,
            "dimension": report.dimension,
            "adtype": report.adtype,
            "reason": report.reason,
            "measurements": [dataclasses.asdict(measurement) for measurement in report.measurements],
            "audited_by": report.audited_by,
        }
        for report in reports
    }
    return {
        "model": model,
        "blocks": json.dumps(blocks),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "inference_library": "dualtape",
        **{f"{name}_version": _version(name) for name in packages},
    }


def names_of_dimensions(traced: TracedModel, found: Trace) -> dict[str, list[str]]:
    """The names of the dimensions of sites, deterministics and fixed sites, where they are known."""
    dims = {name: list(names) for name, names in traced.dims.items() if names}
    return dims | {name: list(names) for name, (_, names) in found.fixed.items() if names}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
