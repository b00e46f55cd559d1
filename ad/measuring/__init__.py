"""How right a derivative is and how long it takes: yardsticks, verdicts, timings, checks, benchmarks and audits."""
