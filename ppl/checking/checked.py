"""What a check of a sampler found: z-scores of moments and cross-moments, a verdict, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

HostArray = np.ndarray[Any, Any]

LIMIT = 4.5
# A site of more entries is looked at by two of them, their mean and their spread.
_FEW = 4
# So many numbers are looked at, at most; cross-moments are taken of all pairs.
_MOST = 40
# A continuous number that is the same after all turns in more than this share of the runs has not been moved.
_STUCK = 0.5


@dataclass(frozen=True)
class SamplerCheck:
    """Whether a sampler leaves the joint distribution of a model as it is.

    Args:
        sampler: as the user wrote it.
        model: its name.
        z: by moment, such as "m", "m²" or "m·s": the difference between where the sampler led and exact draws, in
            standard errors. Moments are those of normal scores, which exist for every distribution.
        stuck: by site, what share of the runs left it where it started, where that is too many.
        turns: in each run.
        replicates: runs.
        ranks: by number, the share of exact draws below where the sampler led, shape (runs,): for the picture.
    """

    sampler: str
    model: str
    z: dict[str, float]
    stuck: dict[str, float]
    turns: int
    replicates: int
    ranks: dict[str, HostArray]

    @property
    def worst(self) -> tuple[str, float]:
        """The moment with the largest |z|."""
        return max(self.z.items(), key=lambda item: abs(item[1]))

    @property
    def ok(self) -> bool:
        """Whether all |z| are below 4.5 and everything has moved."""
        return not self.stuck and abs(self.worst[1]) < LIMIT

    def __str__(self) -> str:
        """The verdict, with the worst moments."""
        name, z = self.worst
        lines = [
            f"{self.sampler} on {self.model}: {'right' if self.ok else 'WRONG'}, as far as {self.replicates} runs of "
            f"{self.turns} turns can tell.",
            f"  largest of {len(self.z)} moments and cross-moments: z = {z:+.2f} for {name} (limit {LIMIT:g})",
        ]
        if not self.ok:
            ranked = sorted(self.z.items(), key=lambda item: -abs(item[1]))
            lines += [f"  {name:<30} z = {z:+.1f}" for name, z in ranked[:10] if abs(z) >= LIMIT]
        lines += [f"  '{site}' has not moved in {share:.0%} of the runs" for site, share in self.stuck.items()]
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Save a picture: all z-scores against what chance gives, and the distribution of each number.

        Args:
            path: of the file; its suffix says the format.
        """
        import matplotlib.pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
        names, z = zip(*sorted(self.z.items(), key=lambda item: item[1]), strict=True)
        expected = special.ndtri((np.arange(len(z)) + 0.5) / len(z))
        left.plot(expected, expected, color="0.6", lw=1)
        left.plot(expected, z, "o", ms=3, color="C0" if self.ok else "C3")
        for border in (-LIMIT, LIMIT):
            left.axhline(border, color="C3", lw=1, ls="--")
        for i in {0, len(z) - 1}:
            side, align = (-6, "right") if i == 0 else (6, "left")
            where = (expected[i], z[i])
            left.annotate(names[i], where, xytext=(side, 0), textcoords="offset points", fontsize=8, ha=align)
        left.margins(x=0.2)
        left.set(xlabel="expected of a right sampler", ylabel="z", title="moments and cross-moments")
        grid = np.linspace(0, 1, 101)
        for name, ranks in self.ranks.items():
            share = np.sort(ranks)
            right.plot(grid, np.searchsorted(share, grid) / len(share) - grid, lw=1, label=name)
        band = 1.95 / np.sqrt(self.replicates)
        right.fill_between(grid, -band, band, color="0.9", zorder=0)
        right.set(
            xlabel="quantile of exact draws",
            ylabel="difference",
            title="distribution after the last turn (grey: chance)",
        )
        if len(self.ranks) <= 12:
            right.legend(fontsize=8)
        figure.suptitle(f"{self.model}: {'right' if self.ok else 'WRONG'}")
        figure.savefig(path, dpi=120)
        plt.close(figure)


def compare(
    sampler: str,
    model: str,
    exact: Mapping[str, HostArray],
    led: Mapping[str, HostArray],
    latent: Sequence[str],
    turns: int,
) -> SamplerCheck:
    """Compare where a sampler led with exact draws.

    Args:
        sampler: as the user wrote it.
        model: its name.
        exact: by site, exact draws, shape (number, ...); the first n, of more, are where the runs started.
        led: by site, snapshots of the runs, shape (n, snapshots, ...).
        latent: the sites that the sampler is to move.
        turns: of each run.
    """
    runs = next(iter(led.values())).shape[0]
    numbers_exact = _numbers(exact, 1)
    numbers_led = _numbers(led, 2)
    wanted = list(numbers_exact)[:_MOST]
    # Ranks among all exact draws make every number comparable and every moment finite.
    scores = {name: _normal_scores(numbers_exact[name], numbers_exact[name][runs:]) for name in wanted}
    led_scores = {name: _normal_scores(numbers_exact[name], numbers_led[name]) for name in wanted}
    z = {}
    for i, name in enumerate(wanted):
        a, b = scores[name], led_scores[name]
        z[name] = _z(a, b)
        z[f"{name}²"] = _z(a**2, b**2)
        for other in wanted[i + 1 :]:
            z[f"{name}·{other}"] = _z(a * scores[other], b * led_scores[other])
    stuck = {}
    for site in latent:
        share = float(np.mean(led[site][:, -1].reshape(runs, -1) == exact[site][:runs].reshape(runs, -1)))
        if exact[site].dtype.kind == "f" and share > _STUCK:
            stuck[site] = share
    last = {name: _random_ranks(numbers_exact[name], numbers_led[name][:, -1]) for name in wanted}
    return SamplerCheck(sampler, model, z, stuck, turns, runs, last)


def _numbers(values: Mapping[str, HostArray], leading: int) -> dict[str, HostArray]:
    """What is looked at of each site: its entries, or some of them with their mean and spread."""
    found = {}
    for name, value in values.items():
        flat = value.reshape(*value.shape[:leading], -1)
        size = flat.shape[-1]
        if size == 1:
            found[name] = flat[..., 0]
            continue
        found |= {f"{name}[{i}]": flat[..., i] for i in range(size if size <= _FEW else 2)}
        if size > _FEW:
            found[f"mean({name})"] = flat.mean(-1)
            found[f"sd({name})"] = flat.std(-1)
    return found


def _normal_scores(reference: HostArray, values: HostArray) -> HostArray:
    """Φ⁻¹ of the share of the reference below each value, ties in the middle."""
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    scores: HostArray = special.ndtri((below / 2 + 0.5) / (len(ordered) + 1))
    return scores


def _random_ranks(reference: HostArray, values: HostArray) -> HostArray:
    """The share of the reference below each value, ties broken at random: uniform if both have one distribution."""
    ordered = np.sort(reference)
    below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    share = np.random.default_rng(0).uniform(size=values.shape)
    ranks: HostArray = (below + share * (upto - below)) / len(ordered)
    return ranks


def _z(exact: HostArray, led: HostArray) -> float:
    """The difference of means over its standard error; the snapshots of a run are averaged first."""
    ours = led.mean(axis=1)
    error = np.sqrt(exact.var(ddof=1) / len(exact) + ours.var(ddof=1) / len(ours))
    return float((ours.mean() - exact.mean()) / error) if error > 0 else 0.0
