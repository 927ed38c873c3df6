"""A report as one page of HTML, which loads nothing: text, numbers and charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from importlib.metadata import version
from itertools import count
from typing import TYPE_CHECKING

from ...compiler.graph.errors import one_line
from ..charting import colours
from ..charting.spectra import MATRICES, draw_spectra, title
from ..tracking.events import now
from .charts import draw
from .facts import (
    Fact,
    differing,
    facts_of,
    options_of,
    refusals,
    shown,
    troubles_of,
    versions_of,
)
from .figures import inline
from .quantities import ACCURACY, AXES, AXIS, KNOWN, LOSS, Quantity, recorded
from .reading import Run
from .style import style_sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 200  # of a table of epochs
NAMED = 80  # characters of a name
LONGEST = 400  # of a value
EPOCH = ("loss", "validation_loss", "validation_accuracy", "seconds", "steps")


def page(runs: Sequence[Run]) -> str:
    """Returns the page of one run, or of several that are compared."""
    title = _name(runs[0]) if len(runs) == 1 else f"{len(runs)} runs compared"
    charts = Charts(runs)
    parts = [
        f"<h1>{title}</h1>", _subtitle(runs), _legend(runs, charts.marked),
        _results(runs), _troubles(runs), *charts.sections,
        _tables(runs, "Options", [options_of(run) for run in runs]),
        _tables(runs, "Versions and machine", [versions_of(run) for run in runs]),
        *map(_epochs, runs),
        f"<footer>newtriton {escape(version('newtriton'))}, {escape(now())}</footer>",
    ]  # fmt: skip
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} – newtriton</title>\n<style>\n{style_sheet()}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _name(run: Run) -> str:
    """Returns the name of a run as HTML."""
    return escape(one_line(run.name, NAMED)) or "run"


def _subtitle(runs: Sequence[Run]) -> str:
    """Returns what is trained by what, where all runs agree in it."""
    tables = [options_of(run) for run in runs]
    alike = {name: tables[0][name] for name in tables[0] if name not in differing(tables)}
    said = [alike[name] for name in ("optimizer", "data", "net") if name in alike]
    if alike.get("model parameters", "").isdecimal():
        said.append(f"{int(alike['model parameters']):,} parameters")
    return f'<p class="sub">{escape(", ".join(said))}</p>' if said else ""


def _legend(runs: Sequence[Run], marked: bool) -> str:
    """Returns which run has which colour, and what lines and marks stand for."""
    items = []
    if len(runs) > 1:
        for index, run in enumerate(runs):
            items.append(f"{_line(index, width=3)}<b>{_name(run)}</b>")
    validated = any(e.validation_loss is not None for run in runs for e in run.history.epochs)
    if validated:
        items.append(f"{_line(None)}validation, after each epoch")
        items.append(f"{_line(None, dash='4 2')}training, mean of an epoch")
        items.append(f"{_line(None, opacity=0.5)}training, each step")
    wrong = "var(--bad)" if len(runs) == 1 else "currentColor"
    mark = '<svg width="12" height="12" aria-hidden="true"><path {}/></svg>'.format
    if any(refusals(run.history) for run in runs):
        cross = mark(f'd="M3 3 L9 9 M9 3 L3 9" stroke="{wrong}" stroke-width="1.6"')
        items.append(f"{cross}refused step")
    if marked:
        triangle = mark(f'd="M6 2 L10.5 10 L1.5 10 Z" fill="{wrong}"')
        items.append(f"{triangle}not finite, or outside of the chart")
    return f'<ul class="legend">{"".join(f"<li>{item}</li>" for item in items)}</ul>'


def _line(index: int | None, dash: str = "", width: float = 2, opacity: float = 1) -> str:
    """Returns a line as the legend has it."""
    color = "currentColor" if index is None else colours.variable(index)
    return (
        '<svg width="24" height="10" aria-hidden="true"><path d="M0 5 H24" '
        f'stroke="{color}" stroke-width="{width}" stroke-dasharray="{dash}" opacity="{opacity}"/>'
        "</svg>"
    )


def _results(runs: Sequence[Run]) -> str:
    """Returns the results: tiles for one run, a table with the best in bold for several."""
    facts = [facts_of(run) for run in runs]
    if len(runs) == 1:
        tiles = (
            f'<div class="tile"><span>{escape(fact.name)}</span>{_data(fact)}'
            f"<span>{escape(fact.note)}&nbsp;</span></div>"
            for fact in facts[0]
        )
        return f'<div class="tiles">{"".join(tiles)}</div>'
    names = [*dict.fromkeys(fact.name for of_run in facts for fact in of_run)]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("Run", *names))
    tables = [{fact.name: fact for fact in of_run} for of_run in facts]
    best = {name: _best([table.get(name) for table in tables]) for name in names}
    rows = []
    for index, (run, table) in enumerate(zip(runs, tables, strict=True)):
        cells = [_cell(name, table.get(name), best[name]) for name in names]
        swatch = f'<span class="swatch" style="background: {colours.variable(index)}"></span>'
        rows.append(f"<tr><th>{swatch}{_name(run)}</th>{''.join(cells)}</tr>")
    return (
        f'<h2>Results</h2><div class="table"><table class="cards"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(name: str, fact: Fact | None, best: float | None) -> str:
    """Returns a result in a table, in bold where it is the best."""
    shown_ = "–" if fact is None else _data(fact)
    if fact is not None and best is not None and fact.value == best:
        shown_ = f"<b>{shown_}</b>"
    note = f" <small>{escape(fact.note)}</small>" if fact is not None and fact.note else ""
    return f'<td data-label="{escape(name)}">{shown_}{note}</td>'


def _best(facts: Sequence[Fact | None]) -> float | None:
    """Returns the best value of a result, None where none is or all are the same."""
    known = [fact for fact in facts if fact is not None and fact.value is not None]
    values = {fact.value for fact in known if fact.value == fact.value}  # no NaN
    if len(values) < 2 or not known[0].better:
        return None
    return (max if known[0].better > 0 else min)(v for v in values if v is not None)


def _data(fact: Fact) -> str:
    """Returns a number as it is read, with the exact one beside it for programs."""
    return f'<data value="{fact.value!r}" title="{fact.value!r}">{escape(fact.shown)}</data>'


def _troubles(runs: Sequence[Run]) -> str:
    """Returns what went wrong."""
    said = []
    for run in runs:
        before = f"<b>{_name(run)}</b>: " if len(runs) > 1 else ""
        said += [f"<li>{before}{escape(one_line(text, LONGEST))}</li>" for text in troubles_of(run)]
    return f'<div class="trouble"><ul>{"".join(said)}</ul></div>' if said else ""


class Charts:
    """The charts of a page: losses and accuracies, what steps recorded, spectra.

    Args:
        runs: the runs.

    Attributes:
        sections: the charts under their titles, as HTML.
        marked: whether a triangle marks something in one of them.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.marked, self._runs, self._numbers = False, runs, count(1)
        known = recorded(runs)
        both = [quantity for quantity in (LOSS, ACCURACY) if quantity.name in known]
        rest = [quantity for quantity in known.values() if quantity not in both]
        ours = [quantity for quantity in rest if quantity.name in KNOWN]
        others = [quantity for quantity in rest if quantity not in ours]
        results = [
            self._figure(f"{quantity.title} by {AXIS[axis]}", partial(self._draw, quantity, axis))
            for quantity in both
            for axis in AXES
        ]
        self.sections = [
            _section("Loss and accuracy" if len(both) > 1 else "Loss", results),
            _section("Steps", self._of_steps(ours)),
            _section("More that steps recorded", self._of_steps(others)),
            _section("Spectrum", [*self._spectra()]),
        ]

    def _draw(self, quantity: Quantity, axis: str, axes: Axes) -> None:
        """Draws a quantity, and notes whether something is marked."""
        self.marked |= draw(axes, self._runs, quantity, axis)

    def _of_steps(self, quantities: Sequence[Quantity]) -> list[str]:
        """Returns charts of what steps recorded, by update."""
        return [self._figure(q.title, partial(self._draw, q, "steps")) for q in quantities]

    def _spectra(self) -> Iterator[str]:
        """Yields a chart of all spectra of one matrix."""
        taken = [run.spectrum for run in self._runs]
        for matrix in MATRICES:
            spectra = [s if s is not None and s.matrix == matrix else None for s in taken]
            if any(spectra):
                yield self._figure(title(matrix), partial(draw_spectra, spectra=spectra))

    def _figure(self, caption: str, drawn: Callable[[Axes], object]) -> str:
        """Returns a chart with what it is called."""
        svg = inline(drawn, f"c{next(self._numbers)}-")
        svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(caption)}" ', 1)
        return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _section(title: str, figures: Sequence[str]) -> str:
    """Returns charts under a title, nothing where there are none."""
    if not figures:
        return ""
    return f'<h2>{title}</h2>\n<div class="charts">\n{"".join(figures)}\n</div>'


def _tables(runs: Sequence[Run], title: str, tables: Sequence[Mapping[str, str]]) -> str:
    """Returns a table of names and values, of several runs first of what differs."""
    if not any(tables):
        return ""
    if len(runs) == 1:
        return f"<h2>{title}</h2>{_table(runs, tables, [*tables[0]])}"
    different = differing(tables)
    alike = [name for name in tables[0] if name not in different]
    parts = [f"<h2>{title}</h2>"]
    if different:
        parts += [_table(runs, tables, different)]
    if alike:
        rest = _table(runs[:1], tables[:1], alike)
        parts.append(f"<details><summary>The same in all runs</summary>{rest}</details>")
    return "".join(parts)


def _table(runs: Sequence[Run], tables: Sequence[Mapping[str, str]], names: Sequence[str]) -> str:
    """Returns a table with a row for each name and a column for each run."""
    head = ""
    if len(runs) > 1:
        cells = "".join(f"<th>{_name(run)}</th>" for run in runs)
        head = f"<thead><tr><th></th>{cells}</tr></thead>"
    rows = []
    for name in names:
        values = [escape(one_line(table.get(name, "–"), LONGEST)) for table in tables]
        cells = "".join(f"<td>{value}</td>" for value in values)
        rows.append(f"<tr><th>{escape(name.replace('_', ' '))}</th>{cells}</tr>")
    return (
        f'<div class="table"><table class="wide">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    )


def _epochs(run: Run) -> str:
    """Returns the records of a run's epochs, of many some at equal distances."""
    epochs = run.history.epochs
    if not epochs:
        return ""
    stride = -(-len(epochs) // ROWS)
    kept = [e for e in epochs if (len(epochs) - e.number) % stride == 0]
    fields = [name for name in EPOCH if any(getattr(e, name) is not None for e in epochs)]
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in ("epoch", *fields))
    rows = []
    for epoch in kept:
        cells = []
        for name in fields:
            value = getattr(epoch, name)
            seen = "–" if value is None else shown(value)
            if name == "validation_accuracy" and value is not None:
                seen = f"{value:.2%}"
            cells.append(f"<td>{_data(Fact(name, value, seen))}</td>")
        rows.append(f"<tr><th>{epoch.number}</th>{''.join(cells)}</tr>")
    few = f", each {stride}th" if stride > 1 else ""
    return (
        f"<details><summary>Epochs of {_name(run)}{few}</summary>"
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )
