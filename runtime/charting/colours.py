"""The colours of reports, by light and by dark: charts are drawn with the light ones.

In a page each light colour of a chart becomes a variable, which stands for the dark one by dark.
"""

from __future__ import annotations

# The names of CSS variables, with their colours by light and by dark; no two are the same.
SERIES = {
    "run1": ("#2d6cdf", "#7fabff"),
    "run2": ("#d4700f", "#f5a65b"),
    "run3": ("#0c8f63", "#4fd0a0"),
    "run4": ("#9149c4", "#c79df2"),
    "run5": ("#c83a66", "#ff8bab"),
    "run6": ("#0f8ba3", "#58d0e3"),
    "run7": ("#8a6a2f", "#d0b06f"),
    "run8": ("#5c6572", "#aab4c2"),
}
INK, MUTED, GRID, PAPER, BAD = "#1b222c", "#5f6b7a", "#dfe4ea", "#ffffff", "#c4202d"
PLAIN = {
    "ink": (INK, "#e8ecf1"),
    "muted": (MUTED, "#9aa6b5"),
    "grid": (GRID, "#2d3642"),
    "paper": (PAPER, "#171c23"),
    "bad": (BAD, "#ff7078"),
}
VARIABLES = {**PLAIN, **SERIES}
STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)))  # of lines, where there are more runs than colours


def series(index: int) -> str:
    """Returns the colour of a run by light."""
    return [light for light, _ in SERIES.values()][index % len(SERIES)]


def style(index: int) -> object:
    """Returns the style of a run's lines, as Matplotlib has it."""
    return STYLES[index // len(SERIES) % len(STYLES)]


def variable(index: int) -> str:
    """Returns the CSS variable of a run's colour."""
    return f"var(--{[*SERIES][index % len(SERIES)]})"
