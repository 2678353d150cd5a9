# SPDX-License-Identifier: GPL-2.0-only
"""Figures of a run of the tests: what was done, and how often."""
import threading

_lock = threading.Lock()
_figures = {}


def add(what, number=1):
    """Adds to a figure, which the run prints at its end."""
    with _lock:
        _figures[what] = _figures.get(what, 0) + number


def lines():
    """A line for each figure, in the order of their names."""
    with _lock:
        return [f"{number:>11,}  {what}"
                for what, number in sorted(_figures.items())]
