"""What a user sees while chains run: a line a chain with its phase, divergences and step size."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any


class Silent:
    """Shows nothing; also what is used where the output is not a terminal."""

    def __enter__(self) -> Silent:
        """Nothing to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def compiling(self) -> None:
        """Nothing to show."""

    def update(self, chain: int, phase: str, done: int, divergences: int, step_size: float) -> None:
        """Nothing to show."""


class Display:
    """A live display in the terminal or the notebook.

    Args:
        chains, warmup, steps: how many, and how many steps each phase has.
        console: where to draw.
        names: of the lines, "chain 0" and so on by default.
    """

    def __init__(self, chains: int, warmup: int, steps: int, console: Any, names: Sequence[str] | None = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._totals = {"warm-up": warmup, "sampling": steps}
        self._lock = threading.Lock()
        self._progress = Progress(
            TextColumn("{task.fields[chain]}"),
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[divergences]:>3} divergences"),
            TextColumn("step size {task.fields[step_size]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            refresh_per_second=8,
        )
        self._tasks = [
            self._progress.add_task(
                "waiting", total=warmup or steps, chain=name, divergences=0, step_size="-", visible=False
            )
            for name in (names or [f"chain {i}" for i in range(chains)])
        ]
        self._compile: Any = self._progress.add_task(
            "compiling", total=None, chain="chain -", divergences=0, step_size="-", visible=False
        )
        self._phases = ["waiting"] * len(self._tasks)

    def __enter__(self) -> Display:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw a last time and leave the lines standing."""
        self._progress.stop()

    def compiling(self) -> None:
        """Say that the model is being compiled."""
        self._progress.update(self._compile, visible=True)

    def update(self, chain: int, phase: str, done: int, divergences: int, step_size: float) -> None:
        """See `chains.Progress.update`."""
        with self._lock:
            if self._compile is not None:
                self._progress.remove_task(self._compile)
                self._compile = None
                for task in self._tasks:
                    self._progress.update(task, visible=True)
            # First what happened, then the phase: in the other order the old count flashes up in the new phase.
            self._progress.update(self._tasks[chain], divergences=divergences, step_size=f"{step_size:.3g}")
            if self._phases[chain] != phase:
                self._phases[chain] = phase
                self._progress.reset(self._tasks[chain], total=self._totals[phase], description=phase)
            self._progress.update(self._tasks[chain], completed=done)


def display(wanted: bool, chains: int, warmup: int, steps: int, names: Sequence[str] | None = None) -> Silent | Display:
    """A display if one is wanted and there is a terminal or a notebook to draw it in, else silence."""
    if not wanted:
        return Silent()
    from rich.console import Console

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        return Silent()
    if console.is_jupyter and importlib.util.find_spec("ipywidgets") is None:
        return Silent()  # rich needs it to draw there, and would warn at every call
    return Display(chains, warmup, steps, console, names)
