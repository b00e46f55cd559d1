"""How each system is run; by name. Importing this imports none of them."""

from __future__ import annotations

from .base import AbstractSystem
from .blackjax import BlackJAX
from .dualtape import Dualtape, fastest
from .numpyro import NumPyro, NumPyroModel
from .nutpie import Nutpie
from .stan import Stan

_NO_LOOPS = "PyMC has no forward algorithm and no integrator that compiles"
PYMC_LACKS = {"hmm": _NO_LOOPS, "lotka_volterra": _NO_LOOPS}

SYSTEMS: dict[str, AbstractSystem] = {
    "dualtape": Dualtape("`sample(model)`, all defaults"),
    "dualtape-fastest": Dualtape("`sample(model, adtype=AutoFastest())`", adtype=fastest),
    "numpyro": NumPyro("`NUTS(potential_fn=...)` on a hand-written flat log density; chains in threads"),
    "numpyro-model": NumPyroModel("a NumPyro model under `MCMC(chain_method='parallel')`, as its users run it"),
    "blackjax": BlackJAX("`nuts` and `window_adaptation` on the same hand-written log density; chains in threads"),
    "blackjax-fisher": BlackJAX("the same, adapting by draws and gradients (`fisher_diag`)", metric="fisher_diag"),
    "nutpie": Nutpie(
        "a PyMC model compiled by numba, a core a chain, its default adaptation", missing=PYMC_LACKS, compiles_once=True
    ),
    "nutpie-low-rank": Nutpie(
        "the same with `adaptation='low_rank'`", adaptation="low_rank", missing=PYMC_LACKS, compiles_once=True
    ),
    "stan": Stan(
        "a Stan program under pystan, by Stan's own clock: without the way of the draws to Python", compiles_once=True
    ),
}
