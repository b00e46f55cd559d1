"""What is imported when: nothing that a program does not use, and every public name from where it belongs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"dualtape": "", "dualtape.ad": "ad", "dualtape.ppl": "ppl", "dualtape.samplers": "samplers"}
HEAVY = ("jax", "numpyro", "arviz", "arviz_base", "xarray", "rich", "scipy", "pandas", "matplotlib", "h5py", "sympy")


def loaded_after(program):
    """The packages that a new process has loaded after a program."""
    report = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    arguments = [sys.executable, "-c", f"{program}\n{report}"]
    return set(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("program", "without"),
    [
        ("import dualtape", HEAVY),
        ("from dualtape import AutoForward", ("numpyro", "arviz", "arviz_base", "xarray", "rich", "pandas", "sympy")),
        (
            "from dualtape import model, rv, sample, NUTS",
            ("arviz", "arviz_base", "xarray", "rich", "pandas", "matplotlib", "h5py", "sympy"),
        ),
    ],
)
def test_an_import_loads_what_it_needs_and_no_more(program, without):
    assert loaded_after(program).isdisjoint(without)


def lists_of(path):
    """The public names of a package, as it lists them for people, for type checkers, and for its imports."""
    tree = ast.parse(path.read_text())
    (public,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    calls = [node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    imports = {node.module: {alias.name for alias in node.names} for node in checked.body}
    return ast.literal_eval(public), imports, ast.literal_eval(calls[-1].args[1])


@pytest.mark.parametrize("package", PACKAGES)
def test_the_lists_of_public_names_agree_and_hold_what_they_say(package):
    public, imports, lazily = lists_of(ROOT / PACKAGES[package] / "__init__.py")
    assert {module: set(names) for module, names in lazily.items()} == imports
    assert sorted(public) == sorted(name for names in imports.values() for name in names)
    module = importlib.import_module(package)
    assert set(public) <= set(dir(module))
    for home, names in imports.items():
        for name in names:
            assert getattr(module, name) is getattr(importlib.import_module(f"{package}.{home}"), name)


def test_a_function_is_found_where_a_module_has_its_name():
    from dualtape import ad, ppl

    for package, name in ((ad, "hessian"), (ad, "gradient"), (ad, "taylor"), (ad, "black_box"), (ppl, "model")):
        importlib.import_module(f"{package.__name__}.{name}")
        assert callable(getattr(package, name))


def test_a_name_that_is_not_there_is_refused_as_python_does():
    import dualtape

    with pytest.raises(AttributeError, match="module 'dualtape' has no attribute 'NUT'"):
        dualtape.NUT  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'NUT'"):
        from dualtape import NUT  # noqa: F401
