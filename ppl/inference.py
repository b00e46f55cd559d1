"""`sample`: from a model and a sampler to an ArviZ object. The only file of this folder that knows samplers."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from ..ad.adtypes import AbstractADType, check_adtype
from ..ad.measuring.auditing import auditing
from ..ad.routing import default_adtype
from ..samplers.base import AbstractKernel
from ..samplers.chains import Draws, Settings, run_chains
from ..samplers.compilation import compile_chain
from ..samplers.composition import Sampler, build_kernel
from ..samplers.nuts import NUTS
from ..samplers.progress import display
from ..samplers.random import chain_key
from .arguments import check_model_and_sampler
from .arviz import to_arviz
from .checks import check_given, check_sampleable
from .initialization import check_initial_values, find_start
from .interpreters import Trace, discover
from .log_density import TracedModel, trace_model
from .model import BoundModel

HostArray = np.ndarray[Any, Any]

# How many numbers the constrained values of one batch of draws may hold: 64 MB of them.
_BATCH_NUMBERS = 1 << 23

# More trajectories than these at the depth limit are worth a word.
_LIMITED_SHARE = 0.05

# A block that accepts less than this share of its proposals stands still; fewer draws than these do not tell.
_STANDSTILL, _FEW = 0.01, 100

# Two modes that differ by more than this, relative to the gradient, differ by more than rounding.
_AUDIT_TOLERANCE = 1e-8


class SamplingWarning(UserWarning):
    """Something in a finished run that its user should look at."""


def sample(
    model: BoundModel,
    sampler: Sampler | None = None,
    draws: int = 1000,
    *,
    warmup: int = 1000,
    chains: int = 4,
    seed: int | None = None,
    adtype: AbstractADType | None = None,
    init: Mapping[str, Any] | None = None,
    thin: int = 1,
    progress: bool = True,
    precision: str = "float64",
    audit: bool = False,
) -> Any:
    """Draw from the posterior distribution of a model.

    A model that looks at the values of its random variables (`if theta > 0:`) needs `adtype=AutoTape()`, here or in
    every block; a gradient of it takes tens of milliseconds, and the blocks of `Gibbs` evaluate all of the model.

    Args:
        model: a model with its data, `f(data)`.
        sampler: `NUTS()` by default.
        draws: to keep from each chain.
        warmup: steps before them, in which the sampler adapts; they are dropped.
        chains: how many; run in parallel on the cores there are.
        seed: a non-negative integer; the same seed gives the same draws, and chain i depends on `seed` and i only.
            None draws one, which the result records.
        adtype: how to differentiate wherever the sampler names no adtype; None means the global default.
        init: initial values by site, in the support of the site: of its shape, or with a leading dimension of
            length `chains`. Other sites start at Uniform(−2, 2) in unconstrained space.
        thin: keep every thin-th step.
        progress: show a line a chain; silent where the output is not a terminal or a notebook.
        precision: "float64" or "float32"; the setting of JAX outside this call is left alone.
        audit: compare the gradient with another mode's at one draw in twenty or so, and record the relative difference
            as `gradient_error` in `sample_stats`, NaN elsewhere. A difference beyond rounding is warned of.

    Returns:
        An ArviZ object (`DataTree`, or `InferenceData` before ArviZ 1.0) with the groups `posterior`,
        `sample_stats`, `observed_data` and, of fixed sites, `constant_data`. Its attributes hold the seed,
        versions, what adtype each block got and why, and the seconds of compilation, warm-up and sampling.
        Interrupted (Ctrl-C) while sampling, it holds the draws made so far and says so.

    Raises:
        TypeError, ValueError: on bad arguments, data outside their support, discrete latent sites, blocks that do
            not partition the sites, or where no starting point is found; before sampling starts.
        DifferentiationError: where an adtype cannot differentiate its block.

    Example:
        `idata = sample(schools(y, sigma), NUTS(target_acceptance=0.9), seed=1)`
    """
    sampler = NUTS() if sampler is None else sampler
    _check_arguments(model, sampler, draws=draws, warmup=warmup, chains=chains, thin=thin, seed=seed, audit=audit)
    if precision not in ("float64", "float32"):
        raise ValueError(f"sample: precision must be 'float64' or 'float32', got {precision!r}.")
    seed = secrets.randbits(32) if seed is None else int(seed)
    default: AbstractContextManager[None] = (
        nullcontext() if adtype is None else default_adtype(check_adtype(adtype, "sample: adtype"))
    )
    settings = Settings(draws, warmup, thin)
    x64 = precision == "float64"
    with jax.enable_x64(x64), default, auditing(audit), display(progress, chains, warmup, draws * thin) as shown:
        started = time.perf_counter()
        found = discover(model, check_given)
        check_sampleable(found, model.name)
        given = check_initial_values(model, init, found, chains)
        shown.compiling()
        traced = trace_model(model, found)
        whole = traced.density.restrict(traced.density.sites)
        dtype = np.dtype(precision)
        kernel = build_kernel(sampler, traced.density, dtype)
        compiled = compile_chain(kernel, whole, traced.data, dtype, settings.longest)
        compile_seconds = time.perf_counter() - started
        starts = [
            find_start(model, traced, given[i], np.random.default_rng([seed, i]), compiled.init, dtype)
            for i in range(chains)
        ]
        keys = [chain_key(seed, i) for i in range(chains)]
        drawn = run_chains(compiled, starts, keys, settings, shown, x64)
        attrs = {
            "sampler": repr(sampler),
            "seed": seed,
            "seconds_compile": compile_seconds,
            "seconds_warmup": drawn.warmup_seconds,
            "seconds_sampling": drawn.sampling_seconds,
        }
        result = _to_result(model, found, traced, kernel, drawn, attrs, settings)
    _warn(drawn, settings, kernel)
    _warn_of_gradients(drawn, kernel, np.dtype(precision))
    return result


def _to_result(
    model: BoundModel,
    found: Trace,
    traced: TracedModel,
    kernel: AbstractKernel,
    drawn: Draws,
    attrs: dict[str, Any],
    settings: Settings,
) -> Any:
    dims = {name: list(names) for name, names in traced.dims.items() if names}
    dims |= {name: list(names) for name, (_, names) in found.fixed.items() if names}
    dims |= {name: ["block"] for name in drawn.statistics if name.startswith("block_")}
    coords: dict[str, Any] = {name: np.array(p.coords or range(p.size)) for name, p in traced.plates.items()}
    coords["chain"] = list(drawn.chains)
    coords["block"] = [report.block for report in kernel.reports]
    blocks = {
        report.block: {
            "sampler": report.sampler,
            "dimension": report.dimension,
            "adtype": report.adtype,
            "reason": report.reason,
            "measurements": [dataclasses.asdict(measurement) for measurement in report.measurements],
            "audited_by": report.audited_by,
        }
        for report in kernel.reports
    }
    attrs |= {
        "model": model.name,
        "blocks": json.dumps(blocks),
        "warmup": settings.warmup,
        "thin": settings.thin,
        "interrupted": int(not drawn.finished),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "inference_library": "dualtape",
        **{f"{name}_version": _version(name) for name in ("dualtape", "jax", "numpyro", "numpy")},
    }
    observed = {name: np.asarray(value) for name, value in traced.observed.items()}
    groups = {
        "posterior": _constrained(traced, drawn.positions),
        "sample_stats": drawn.statistics,
        "observed_data": observed,
        "constant_data": {name: np.asarray(value) for name, (value, _) in found.fixed.items()},
    }
    return to_arviz(groups, dims=dims, coords=coords, attrs=attrs)


def _constrained(traced: TracedModel, positions: HostArray) -> dict[str, HostArray]:
    """Constrained values of all draws, shape (chains, draws, ...).

    All draws at once where memory allows, which is an order of magnitude faster than a loop over them.
    """
    values = jax.jit(jax.vmap(traced.constrained, in_axes=(0, *(None for _ in traced.data))))
    flat = positions.reshape(-1, positions.shape[-1])
    one = jax.eval_shape(traced.constrained, flat[0], *traced.data)
    batch = max(1, _BATCH_NUMBERS // (flat.shape[1] + sum(value.size for value in one.values())))
    parts = [values(flat[i : i + batch], *traced.data) for i in range(0, len(flat), batch)]
    return {
        name: _joined([np.asarray(part[name]) for part in parts]).reshape(*positions.shape[:2], *value.shape)
        for name, value in one.items()
    }


def _joined(parts: list[HostArray]) -> HostArray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _warn_of_standstill(drawn: Draws, kernel: AbstractKernel) -> None:
    rates = drawn.statistics.get("acceptance_rate", drawn.statistics.get("block_acceptance_rate"))
    if rates is None:
        return
    flat = np.asarray(rates, float).reshape(*np.shape(rates)[:2], -1)
    for i, report in enumerate(kernel.reports):
        known = flat[..., i][np.isfinite(flat[..., i])]
        if known.size >= _FEW and known.mean() < _STANDSTILL:
            warnings.warn(
                f"block '{report.block}' accepted {known.mean():.1%} of its proposals and has hardly moved: the draws "
                f"say nothing about it. Make its steps shorter, its block smaller, or use another sampler for it.",
                SamplingWarning,
                stacklevel=4,
            )


def _warn(drawn: Draws, settings: Settings, kernel: AbstractKernel) -> None:
    chains, kept = drawn.positions.shape[:2]
    divergences = int(np.sum(drawn.statistics.get("diverging", 0)))
    if divergences:
        warnings.warn(
            f"{divergences} of {chains * kept} draws ended in a divergence: the posterior has regions that the step "
            f"size is too long for, and the draws may miss them. Raise target_acceptance, shorten a fixed step size, "
            f"or reparameterise (a non-centred form, for a hierarchical model).",
            SamplingWarning,
            stacklevel=3,
        )
    else:
        _warn_of_standstill(drawn, kernel)
    depth = drawn.statistics.get("reached_max_treedepth", drawn.statistics.get("block_reached_max_treedepth"))
    limited = 0.0 if depth is None else float(np.max(np.mean(np.nan_to_num(np.asarray(depth, float)), axis=(0, 1))))
    if limited > _LIMITED_SHARE:
        warnings.warn(
            f"{limited:.0%} of the trajectories stopped at the limit of max_tree_depth, before they turned back: the "
            f"draws are right but mix slowly. Rescale or reparameterise the model, use metric=DenseMetric(), or raise "
            f"max_tree_depth.",
            SamplingWarning,
            stacklevel=3,
        )
    if not drawn.finished:
        warnings.warn(
            f"interrupted: the result holds {kept} of {settings.draws} draws from each of {chains} chain(s).",
            SamplingWarning,
            stacklevel=3,
        )


def _warn_of_gradients(drawn: Draws, kernel: AbstractKernel, dtype: Any) -> None:
    errors = drawn.statistics.get("gradient_error", drawn.statistics.get("block_gradient_error"))
    if errors is None:
        return
    flat = np.asarray(errors).reshape(*np.shape(errors)[:2], -1)
    for i, report in enumerate(kernel.reports):
        found = flat[..., i][np.isfinite(flat[..., i])]
        worst = float(found.max()) if found.size else 0.0
        limit = _AUDIT_TOLERANCE if report.audited_by != "AutoFiniteDiff()" else _AUDIT_TOLERANCE**0.5
        if worst > max(limit, 1e4 * float(np.finfo(dtype).eps)):
            warnings.warn(
                f"block '{report.block}': the gradient of {report.adtype} and that of {report.audited_by} differ by up "
                f"to {worst:.2g} of its size along the chains. Look at the model with check_gradients, and use the "
                f"adtype that agrees with finite differences.",
                SamplingWarning,
                stacklevel=3,
            )


def _check_arguments(model: object, sampler: object, *, seed: object, audit: object, **counts: object) -> None:
    check_model_and_sampler("sample", model, sampler)
    for name, value in counts.items():
        low = 0 if name == "warmup" else 1
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ValueError(f"sample: {name} must be an integer >= {low}, got {value!r}.")
    if not isinstance(audit, bool):
        raise TypeError(f"sample: audit must be True or False, got {audit!r}.")
    if seed is not None and (
        isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63
    ):
        raise ValueError(f"sample: seed must be a non-negative integer below 2**63 or None, got {seed!r}.")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
