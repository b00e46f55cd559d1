"""`sample`: from a model and a sampler to an ArviZ object. The only file of this folder that knows samplers."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Literal

import jax
import numpy as np

from ..ad.adtypes import AbstractADType, check_adtype
from ..ad.errors import DifferentiationError
from ..ad.measuring.auditing import auditing
from ..ad.routing import default_adtype
from ..samplers.base import AbstractKernel
from ..samplers.chains import TRIES, Draws, Settings
from ..samplers.composition import Sampler, build_kernel
from ..samplers.executables import compile_soon, remembering
from ..samplers.nuts import NUTS
from ..samplers.parallel import AbstractParallel, Compiled, NoStartError, usual_parallel
from ..samplers.progress import display
from ..samplers.random import chain_key
from ..samplers.stopping import Until
from .arguments import as_seed, check_model_and_sampler
from .arviz import to_arviz
from .attributes import common_attributes, names_of_dimensions
from .checks import check_given, check_sampleable
from .constrained import Batch, ConstrainedValues
from .identity import Lent, run_identity, with_data
from .initialization import AbstractStart, chain_proposals, check_initial_values, explain_failure
from .interpreters import discover
from .log_density import TracedModel, trace_model
from .model import BoundModel
from .precision import warn_of_precision
from .trace import Trace

HostArray = np.ndarray[Any, Any]

# The kernels and the values of the runs before this one, by `run_identity`.
_ready = remembering(64)

# More trajectories than these at the depth limit are worth a word.
_LIMITED_SHARE = 0.05

# A block that accepts less than this share of its proposals stands still; fewer draws than these do not tell.
_STANDSTILL, _FEW = 0.01, 100

# After fewer steps of warm-up than these, divergences say little of the model.
_SHORT = 50

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
    init: Mapping[str, Any] | AbstractStart | Literal["pathfinder"] | None = None,
    thin: int = 1,
    progress: bool = True,
    precision: str = "float64",
    audit: bool = False,
    until: Until | None = None,
    parallel: AbstractParallel | None = None,
) -> Any:
    """Draw from the posterior distribution of a model.

    A model that looks at the values of its random variables (`if theta > 0:`) needs `adtype=AutoTape()`, here or in
    every block; a gradient of it takes tens of milliseconds, and the blocks of `Gibbs` evaluate all of the model.

    Args:
        model: a model with its data, `f(data)`.
        sampler: `NUTS()` by default.
        draws: to keep from each chain.
        warmup: steps before them, in which the sampler adapts; they are dropped.
        chains: how many.
        seed: a non-negative integer; the same seed gives the same draws, and chain i depends on `seed` and i only.
            None draws one, which the result records.
        adtype: how to differentiate wherever the sampler names no adtype; None means the global default.
        init: initial values by site, in the support of the site: of its shape, or with a leading dimension of
            length `chains`. Other sites start at Uniform(−2, 2) in unconstrained space. Or `FromPathfinder()`, for
            which "pathfinder" may be written: draws from approximations of the posterior.
        thin: keep every thin-th step.
        progress: show a line a chain; silent where the output is not a terminal or a notebook.
        precision: "float64" or "float32"; the setting of JAX outside this call is left alone.
        audit: compare the gradient with another mode's at one draw in twenty or so, and record the relative difference
            as `gradient_error` in `sample_stats`, NaN elsewhere. A difference beyond rounding is warned of.
        until: stop before `draws` draws, as soon as effective sample size and R-hat are good enough:
            `until=Until(ess=400, rhat=1.01)`.
        parallel: how chains share the machine: `Threads()`, a thread a chain, which is the default on a CPU, or
            `Vectorized()`, all in one program, which is the default on an accelerator. The draws of both are the same
            but for rounding, which NUTS makes grow along a chain.

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
    _check_arguments(model, sampler, draws=draws, warmup=warmup, chains=chains, thin=thin, audit=audit)
    if not (until is None or isinstance(until, Until)):
        raise TypeError(f"sample: until must be Until(ess=..., rhat=...) or None, got {until!r}.")
    if not (parallel is None or isinstance(parallel, AbstractParallel)):
        raise TypeError(f"sample: parallel must be Threads(), Vectorized() or None, got {parallel!r}.")
    if precision not in ("float64", "float32"):
        raise ValueError(f"sample: precision must be 'float64' or 'float32', got {precision!r}.")
    seed = as_seed("sample", seed)
    default: AbstractContextManager[None] = (
        nullcontext() if adtype is None else default_adtype(check_adtype(adtype, "sample: adtype"))
    )
    settings = Settings(draws, warmup, thin, until)
    way = usual_parallel() if parallel is None else parallel
    x64 = precision == "float64"
    shown_as = display(progress, chains, warmup, draws * thin, way.lines(chains))
    with jax.enable_x64(x64), default, auditing(audit), shown_as as shown:
        started = time.perf_counter()
        found = discover(model, check_given)
        check_sampleable(found, model.name)
        given = check_initial_values(model, init, found, chains)
        shown.compiling()
        traced = trace_model(model, found)
        warn_of_precision(traced, model.name)
        dtype = np.dtype(precision)
        try:
            compiled, constrained = _programs(traced, sampler, settings, chains, way, dtype, audit=audit)
        except DifferentiationError as error:
            if found.looks_at:
                error.add_note(found.looks_at)
            raise
        compile_seconds = time.perf_counter() - started
        proposed = chain_proposals(model, found, traced, init, given, seed, dtype)
        started = time.perf_counter()
        try:
            starts = way.start(compiled, proposed, TRIES if compiled.kernel.trial(warmup) else 1)
        except NoStartError as error:
            raise ValueError(explain_failure(traced, error.position, given[error.chain])) from None
        start_seconds = time.perf_counter() - started
        keys = [chain_key(seed, i) for i in range(chains)]
        drawn = way.run(compiled, starts, keys, settings, shown, x64)
        attrs = {
            "sampler": repr(sampler),
            "seed": seed,
            "seconds_compile": compile_seconds,
            "seconds_warmup": start_seconds + drawn.warmup_seconds,
            "seconds_sampling": drawn.sampling_seconds,
            "gradients_warmup": drawn.warmup_gradients,
        }
        posterior = constrained()(drawn.positions, traced.data)
        result = _to_result(model, found, traced, compiled.kernel, drawn, posterior, attrs, settings)
    _warn(drawn, settings, compiled.kernel)
    _warn_of_gradients(drawn, compiled.kernel, np.dtype(precision))
    return result


def _programs(
    traced: TracedModel,
    sampler: Sampler,
    settings: Settings,
    chains: int,
    parallel: AbstractParallel,
    dtype: Any,
    *,
    audit: bool,
) -> tuple[Compiled, Callable[[], ConstrainedValues]]:
    """The compiled kernel, and a function that waits for the values.

    They are those of an earlier run, if it was the same but for its data and length.
    """
    identity = run_identity(traced, sampler, dtype, audit, parallel.signature(chains, settings.longest))
    batch = Batch.of(traced, chains * settings.draws, dtype)
    known: Compiled | None = _ready.get(identity) if identity else None
    if known is not None:
        return known.with_data(traced.data), _begin_values(batch, identity)
    lent = Lent(traced.data)
    density = with_data(traced.density, lent)
    kernel = build_kernel(sampler, density, dtype)
    whole = density.restrict(density.sites)
    values: list[Callable[[], ConstrainedValues]] = []

    def meanwhile() -> None:
        values.append(_begin_values(batch, identity))
        _import_arviz()

    compiled = parallel.compile(kernel, whole, traced.data, dtype, chains, settings.longest, meanwhile)
    # A kernel that was made from the values of data is that of these data.
    if identity and compiled.reusable and not lent.was_read:
        lent.take_back()
        _ready.put(identity, compiled.with_data(()))
    return compiled, values[0]


def _begin_values(batch: Batch, identity: Hashable | None) -> Callable[[], ConstrainedValues]:
    """Begin to compile the values of draws, which nobody needs before they are drawn."""
    known: ConstrainedValues | None = _ready.get((identity, batch.rows)) if identity else None
    if known is not None:
        return lambda: known
    pending = compile_soon(batch.values, *batch.arguments)

    def finish() -> ConstrainedValues:
        program = pending.result()
        found = ConstrainedValues(batch.rows, batch.shapes, program.call)
        if identity and program.reusable:
            _ready.put((identity, batch.rows), found)
        return found

    return finish


def _import_arviz() -> None:
    """Begin to import what the result will need, which takes as long as compiling a small model."""
    name = "xarray" if importlib.util.find_spec("arviz_base") is None else "arviz_base"

    def import_it() -> None:
        with suppress(Exception):  # what is wrong shows where it is needed
            importlib.import_module(name)

    if name not in sys.modules:
        threading.Thread(target=import_it, name=f"import {name}").start()


def _to_result(
    model: BoundModel,
    found: Trace,
    traced: TracedModel,
    kernel: AbstractKernel,
    drawn: Draws,
    posterior: dict[str, HostArray],
    attrs: dict[str, Any],
    settings: Settings,
) -> Any:
    dims = names_of_dimensions(traced, found)
    dims |= {name: ["block"] for name in drawn.statistics if name.startswith("block_")}
    coords: dict[str, Any] = {name: plate.labels for name, plate in traced.plates.items()}
    coords["chain"] = list(drawn.chains)
    coords["block"] = [report.block for report in kernel.reports]
    attrs |= {
        **common_attributes(model.name, kernel.reports, ("dualtape", "jax", "numpyro", "numpy")),
        "warmup": settings.warmup,
        "thin": settings.thin,
        "interrupted": int(not drawn.finished),
    }
    observed = {name: np.asarray(value) for name, value in traced.observed.items()}
    groups = {
        "posterior": posterior,
        "sample_stats": drawn.statistics,
        "observed_data": observed,
        "constant_data": {name: np.asarray(value) for name, (value, _) in found.fixed.items()},
    }
    return to_arviz(groups, dims=dims, coords=coords, attrs=attrs)


def _warn_of_standstill(drawn: Draws, kernel: AbstractKernel) -> None:
    rates = drawn.statistics.get("acceptance_rate", drawn.statistics.get("block_acceptance_rate"))
    if rates is None:
        return
    told = np.any(drawn.statistics.get("diverging", False))
    flat = np.asarray(rates, float).reshape(*np.shape(rates)[:2], -1)
    for i, report in enumerate(kernel.reports):
        known = np.isfinite(flat[..., i])
        means = np.sum(flat[..., i], axis=1, where=known) / np.maximum(np.sum(known, axis=1), 1)
        enough = known.sum(axis=1) >= _FEW
        # Short chains tell together what none of them tells alone, if divergences have not told it.
        if not (told or enough.any()) and known.sum() >= _FEW and flat[..., i][known].mean() < _STANDSTILL:
            enough[:] = True
        slow = np.flatnonzero(enough & (means < _STANDSTILL))
        if slow.size:
            which = ", ".join(str(drawn.chains[k]) for k in slow)
            warnings.warn(
                f"block '{report.block}' accepted {means[slow].mean():.1%} of its proposals in chain {which} and has "
                f"hardly moved: the draws say nothing about it. Raise warmup if it was short, make its steps shorter "
                f"or its block smaller, or use another sampler for it.",
                SamplingWarning,
                stacklevel=4,
            )


def _warn(drawn: Draws, settings: Settings, kernel: AbstractKernel) -> None:
    chains, kept = drawn.positions.shape[:2]
    divergences = int(np.sum(drawn.statistics.get("diverging", 0)))
    if divergences:
        longer = f"Raise warmup first: {settings.warmup} steps learn little. " if settings.warmup < _SHORT else ""
        warnings.warn(
            f"{divergences} of {chains * kept} draws ended in a divergence: the posterior has regions that the step "
            f"size is too long for, and the draws may miss them. {longer}Raise target_acceptance, shorten a fixed "
            f"step size, or reparameterise (a non-centred form, for a hierarchical model).",
            SamplingWarning,
            stacklevel=3,
        )
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
    if settings.until and drawn.finished and not drawn.reached:
        warnings.warn(
            f"{settings.draws} draws from each of {chains} chain(s) were not enough to reach {settings.until!r}. Raise "
            f"draws, or look at what mixes slowly (az.summary).",
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


def _check_arguments(model: object, sampler: object, *, audit: object, **counts: object) -> None:
    check_model_and_sampler("sample", model, sampler)
    for name, value in counts.items():
        low = 0 if name == "warmup" else 1
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ValueError(f"sample: {name} must be an integer >= {low}, got {value!r}.")
    if not isinstance(audit, bool):
        raise TypeError(f"sample: audit must be True or False, got {audit!r}.")
