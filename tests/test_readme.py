"""The code of the README runs, and says what the README says of it."""

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def _block(start):
    (found,) = [block for block in BLOCKS if start in block]
    return found


def test_the_first_program():
    scope = {}
    exec(_block("def gdemo"), scope)
    posterior = scope["idata"]["posterior"]
    # Four chains of 1000 draws by two short HMC blocks, of which at least 500 count: 4.5 standard errors.
    assert abs(float(posterior["m"].mean()) - 7 / 6) < 4.5 * float(posterior["m"].std()) / np.sqrt(500)


def test_a_panel_of_sensors():
    scope = {}
    exec(_block("def gdemo").split("idata = ")[0], scope)
    exec("from dualtape import plate, scan", scope)
    exec(_block("def panel"), scope)
    y = np.random.default_rng(0).normal(size=(4, 3))
    found = scope["sample"](scope["panel"](y), draws=20, warmup=50, chains=1, seed=1, progress=False)
    assert found["posterior"]["level"].dims == ("chain", "draw", "day")
    assert found["observed_data"]["y"].dims == ("day", "sensor")


def test_questions_to_a_model():
    scope = {"x": np.arange(5.0), "y": np.arange(5.0) + 0.1, "x_new": np.array([7.0, 8.0])}
    exec(
        "import numpyro.distributions as dist\n"
        "from dualtape import log_likelihood, model, optimize, plate, predict, rv, sample\n"
        "@model\n"
        "def regression(x, y):\n"
        "    slope, noise = rv('slope', dist.Normal(0.0, 2.0)), rv('noise', dist.LogNormal(-1.0, 0.5))\n"
        "    with plate('row', len(x)):\n"
        "        rv('y', dist.Normal(slope * x, noise), obs=y)\n",
        scope,
    )
    exec(_block("idata = sample(regression(x, y), seed=1)"), scope)
    assert {"posterior", "log_likelihood", "posterior_predictive"} <= set(
        scope["idata"].children if hasattr(scope["idata"], "children") else scope["idata"].groups()
    )
    assert scope["new"]["y"].shape == (4, 1000, 2)
    assert abs(float(scope["best"]["posterior"]["slope"].values.item()) - 1.03) < 0.05
