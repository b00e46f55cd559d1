"""Stan programs: against a stand-in with BridgeStan's interface and known numbers, and against BridgeStan itself."""

import sys
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dualtape import (
    NUTS,
    AutoFiniteDiff,
    AutoForward,
    AutoReverse,
    External,
    Gibbs,
    Slice,
    Vectorized,
    check_gradients,
    explain,
    sample,
)
from dualtape.ad import value_and_gradient
from dualtape.ppl.bring.stan import Group, from_stan, groups
from dualtape.ppl.interpreters import discover
from dualtape.ppl.log_density import trace_model

PROGRAM = """
parameters { real mu; real<lower=0> tau; matrix[2, 3] z; }
transformed parameters { real twice = 2 * tau; }
model { mu ~ normal(1, 2); tau ~ gamma(3, 4); to_vector(z) ~ std_normal(); if (mu > 50) reject("too large"); }
generated quantities { array[2] real noise = normal_rng({mu, mu}, 1); }
"""
Z = [f"z.{i}.{j}" for j in (1, 2, 3) for i in (1, 2)]
OPTIONS = {"draws": 1000, "warmup": 300, "chains": 2, "seed": 5, "progress": False}


class StanModel:
    """BridgeStan's class of this name, for the program above, with the same signatures."""

    def __init__(self, model_lib=None, data=None, *, make_args=(), threads=True):
        self.model_lib, self.data, self.make_args, self.threads = model_lib, data, make_args, threads
        self.calls, self.inside, self.overlaps = 0, 0, 0
        self.guard = threading.Lock()

    def name(self):
        return "program_model"

    def model_info(self):
        return f"Stan version: 2.39.0\nSTAN_THREADS={str(self.threads).lower()}"

    def param_unc_num(self):
        return 8

    def param_unc_names(self):
        return ["mu", "tau", *Z]

    def param_num(self, *, include_tp=False, include_gq=False):
        return len(self.param_names(include_tp=include_tp, include_gq=include_gq))

    def param_names(self, *, include_tp=False, include_gq=False):
        return ["mu", "tau", *Z, *["twice"] * include_tp, *["noise.1", "noise.2"] * include_gq]

    def new_rng(self, seed):
        return np.random.default_rng(seed)

    def param_constrain(self, theta_unc, *, include_tp=False, include_gq=False, out=None, rng=None):
        values = [theta_unc[0], np.exp(theta_unc[1]), *theta_unc[2:]]
        values += [2 * values[1]] if include_tp else []
        return np.array(values + (list(values[0] + rng.normal(size=2)) if include_gq else []))

    def log_density_gradient(self, theta_unc, *, propto=True, jacobian=True, out=None):
        assert isinstance(theta_unc, np.ndarray)
        assert theta_unc.dtype == np.float64
        assert (propto, jacobian) == (False, True)
        with self.guard:
            self.calls, self.inside = self.calls + 1, self.inside + 1
            self.overlaps += self.inside > 1
        if not self.threads:
            time.sleep(1e-6)  # where another thread may come in
        mu, q, z = theta_unc[0], theta_unc[1], theta_unc[2:]
        value = -((mu - 1) ** 2) / 8 + 3 * q - 4 * np.exp(q) - z @ z / 2
        gradient = np.array([-(mu - 1) / 4, 3 - 4 * np.exp(q), *-z])
        with self.guard:
            self.inside -= 1
        if mu > 50:
            raise RuntimeError("too large")
        return float(value), gradient


def traced(m):
    return trace_model(m, discover(m))


def z_score(draws, expected):
    batches = draws.reshape(-1, 50).mean(axis=1)
    return (batches.mean() - expected) / (batches.std(ddof=1) / np.sqrt(len(batches)))


@pytest.mark.parametrize("adtype", [AutoForward(), AutoForward(chunk_size=2), AutoReverse(), AutoFiniteDiff()])
def test_every_adtype_takes_stans_gradient(adtype):
    program = StanModel()
    density = traced(from_stan(program)).density
    q = np.random.default_rng(0).normal(size=8)
    program.calls = 0
    compiled = jax.jit(lambda q: value_and_gradient(density.log_density, adtype, q, *density.data))
    value, gradient = compiled(q)
    jax.block_until_ready((value, gradient))
    # Sites hold their entries as Stan orders variables, the last index fastest; Stan has the first fastest.
    swapped = [0, 1, *(2 + np.arange(6).reshape(2, 3).T.ravel())]
    expected, slope = program.log_density_gradient(np.ascontiguousarray(q[swapped]), propto=False)
    finite = isinstance(adtype, AutoFiniteDiff)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(gradient[np.array(swapped)], slope, rtol=1e-7 if finite else 1e-14)
    assert finite or program.calls - 1 <= 4


def test_sampling_has_the_moments_of_the_program():
    # Gamma(3, 4) has the mean 3/4; a z beyond 4.5 happens by chance once in 70 000 runs.
    posterior = sample(from_stan(StanModel()), **OPTIONS)["posterior"]
    mu, tau, z = (posterior[name].values for name in ("mu", "tau", "z"))
    for draws, expected in ((mu, 1.0), ((mu - 1) ** 2, 4.0), (tau, 0.75), (z[..., 1, 2] ** 2, 1.0)):
        assert abs(z_score(draws, expected)) < 4.5
    assert abs(z_score(tau + 0.2, 0.75)) > 4.5
    np.testing.assert_allclose(tau, np.exp(posterior["tau_unc"].values), rtol=1e-14)
    np.testing.assert_allclose(posterior["twice"].values, 2 * tau, rtol=1e-14)
    assert posterior["noise"].shape == (2, 1000, 2)
    # Entries of a matrix stand where they stand in Stan.
    np.testing.assert_array_equal(z, posterior["z_unc"].values)
    noise = posterior["noise"].values - mu[..., None]
    assert abs(z_score(noise[..., 0] ** 2, 1.0)) < 4.5
    assert abs(np.corrcoef(noise.reshape(-1, 2).T)[0, 1]) < 4.5 / np.sqrt(2000)


@pytest.mark.parametrize("threads", [True, False])
def test_programs_without_threads_take_turns(threads):
    program = StanModel(threads=threads)
    sample(from_stan(program), **{**OPTIONS, "chains": 4, "draws": 50, "warmup": 50})
    assert threads or program.overlaps == 0


@pytest.mark.parametrize("way", [None, Vectorized()])
def test_blocks_of_a_program(way):
    sampler = Gibbs({"tau_unc": Slice(), "z_unc[0]": NUTS(), ...: NUTS(adtype=AutoReverse())})
    tau = sample(from_stan(StanModel()), sampler, parallel=way, **OPTIONS)["posterior"]["tau"].values
    assert abs(z_score(tau, 0.75)) < 4.5
    assert abs(z_score(tau + 0.2, 0.75)) > 4.5


def test_a_kernel_of_blackjax_samples_it():
    blackjax = pytest.importorskip("blackjax")
    kernel = External(lambda log_density: blackjax.nuts(log_density, step_size=0.5, inverse_mass_matrix=np.ones(8)))
    tau = sample(from_stan(StanModel()), kernel, **OPTIONS)["posterior"]["tau"].values
    assert abs(z_score(tau, 0.75)) < 4.5


def test_plans_and_checks_work_on_it(capsys):
    m = from_stan(StanModel())
    explain(m)
    check_gradients(m)
    out = capsys.readouterr().out
    assert "program_model" in out
    assert "correct" in out
    assert traced(m | {"mu_unc": 1.0}).density.dimension == 7


def test_a_rejection_is_a_density_of_zero():
    density = traced(from_stan(StanModel())).density
    far = jnp.zeros(8).at[0].set(60.0)
    assert density.log_density(far, *density.data) == -np.inf


def test_names_of_entries_become_variables():
    names = [
        "a",
        "v.1",
        "v.2",
        "m.1.1",
        "m.2.1",
        "m.1.2",
        "m.2.2",
        "pair:1",
        "pair:2.1",
        "z.1.real",
        "z.1.imag",
        "w.3.1",
    ]
    assert groups(names) == [
        Group("a", 0, ()),
        Group("v", 1, (2,)),
        Group("m", 3, (2, 2)),
        Group("pair:1", 7, ()),
        Group("pair:2", 8, (1,)),
        Group("z.1.real", 9, ()),
        Group("z.1.imag", 10, ()),
        Group("w", 11, (1,)),
    ]


def test_files_are_compiled_with_threads(monkeypatch):
    monkeypatch.setitem(sys.modules, "bridgestan", SimpleNamespace(StanModel=StanModel))
    program = from_stan("schools.stan", {"J": 8}).model.stan
    assert (program.model_lib, program.data, list(program.make_args)) == (
        "schools.stan",
        {"J": 8},
        ["STAN_THREADS=True"],
    )
    assert list(from_stan("schools_model.so").model.stan.make_args) == []


class Empty(StanModel):
    def param_unc_num(self):
        return 0

    def param_unc_names(self):
        return [""]


class Rejecting(StanModel):
    def log_density_gradient(self, theta_unc, **options):
        raise RuntimeError("Cholesky of a matrix of zeros.")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: from_stan("schools.stan", {}), ImportError, "pip install bridgestan"),
        (lambda: from_stan(PROGRAM), TypeError, "save the text of a program to a file"),
        (lambda: from_stan(3), TypeError, "path of a .stan file"),
        (lambda: from_stan(StanModel(), {"J": 8}), TypeError, "has its data already"),
        (lambda: from_stan(Empty()), ValueError, "no parameters"),
        (lambda: from_stan(Rejecting()), ValueError, "Cholesky of a matrix of zeros. Check the data"),
    ],
)
def test_errors_say_what_to_do(monkeypatch, make, error, message):
    monkeypatch.setitem(sys.modules, "bridgestan", None)
    with pytest.raises(error, match=message):
        make()


def test_bridgestan_itself(tmp_path):
    bridgestan = pytest.importorskip("bridgestan")
    try:
        bridgestan.compile.get_bridgestan_path(download=False)
    except (RuntimeError, ValueError) as error:
        pytest.skip(f"no sources of BridgeStan: {error}")
    file = tmp_path / "program.stan"
    file.write_text(PROGRAM)
    m = from_stan(str(file))
    density, known = traced(m).density, traced(from_stan(StanModel())).density
    q = np.random.default_rng(0).normal(size=(2, 8))
    ours, exact = (np.array([d.log_density(x, *d.data) for x in q]) for d in (density, known))
    np.testing.assert_allclose(ours[0] - ours[1], exact[0] - exact[1], rtol=1e-10)
    assert sample(m, **OPTIONS)["posterior"]["z"].shape == (2, 1000, 2, 3)
