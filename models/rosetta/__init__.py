"""The classic models of the tutorials of Turing, PyMC and NumPyro; `docs/rosetta.md` shows them beside NumPyro's."""
