"""Whole runs of dualtape beside those of its peers: NumPyro, BlackJAX, PyMC with nutpie, and Stan.

`python -m benchmarks.peers` runs every system on every model, one process at a time and in turns, and writes a table
and a plot into `benchmarks/results/`. The files, in the order of reading:

    problems, simulated, stan/     what is sampled: data, Stan programs, reference moments (NumPy alone)
    transforms, densities/         the same as hand-written log densities over a flat array
    numpyro_models, pymc_models, dualtape_models    the same as users of these libraries write it
    systems/                       how each system is run, and how its time is divided into phases
    worker, schedule               one run in a process of its own; all runs in turns
    scores, table, plot            from draws and seconds to figures
    check, reference               are the transcriptions right; where the reference of simulated models comes from
"""
