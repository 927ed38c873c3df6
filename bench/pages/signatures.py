"""Tables of options: their defaults, from a signature, and what they mean, from its docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

import newtriton as nt

from ...compiler.graph.errors import NewtritonError
from ...runtime.optimizers.registry import CURVATURES, RULES, SOLVERS
from .lines import table
from .results import Results


def defaults(_: Results, name: str) -> Iterator[str]:
    """Yields the options of a public class or function: name, default, meaning.

    Args:
        name: its name, as in `nt.NAME`.

    Raises:
        NewtritonError: there is none of this name, or its docstring does not have its options.
    """
    of = getattr(nt, name, None)
    if not callable(of):
        raise NewtritonError(f"there is no nt.{name}: give a class or a function that is public")
    meanings: dict[str, str] = {}
    for each in reversed(inspect.getmro(of) if inspect.isclass(of) else [of]):
        meanings |= arguments(each.__doc__ or "")
    lines = []
    for option in inspect.signature(of).parameters.values():
        if option.name not in meanings:
            raise NewtritonError(f"the docstring of nt.{name} says nothing of {option.name}")
        lines.append([f"`{option.name}`", _default(option), _meaning(meanings[option.name])])
    yield from table(["option", "default", ""], lines)


def arguments(docstring: str) -> dict[str, str]:
    """Returns what the part `Args:` of a docstring says of each argument, in one line.

    Examples:
        >>> arguments('''Adds.
        ...
        ... Args:
        ...     a: one,
        ...         which is long.
        ...     b: another.
        ...
        ... Returns:
        ...     c: the sum.
        ... ''')
        {'a': 'one, which is long.', 'b': 'another.'}
    """
    _, _, behind = inspect.cleandoc(docstring).partition("\nArgs:\n")
    inside = re.split(r"\n(?=\S)", f"{behind}\n", maxsplit=1)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", inside, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _default(option: inspect.Parameter) -> str:
    """Returns a default as it is written in code."""
    if option.kind is inspect.Parameter.VAR_KEYWORD:
        return "any"
    if option.default is inspect.Parameter.empty:
        return "–"
    text = f'"{option.default}"' if isinstance(option.default, str) else repr(option.default)
    return f"`{text}`"


def _meaning(text: str) -> str:
    """Returns a meaning as a cell, whose strokes are no borders."""
    return text.replace("|", r"\|")


def combinations(_: Results) -> Iterator[str]:
    """Yields which step rules go with each curvature and solver that are given by name."""
    net = nt.Sequential(nt.Linear(3), nt.Tanh(), nt.Linear(2))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    rules = [*RULES]
    groups: dict[tuple[str, ...], list[str]] = {}
    for curvature in CURVATURES:
        cells = [_together(model, curvature, solver, rules) for solver in SOLVERS]
        groups.setdefault((*cells,), []).append(f"`{curvature}`")
    head = ["", *(f"`{solver}`" for solver in SOLVERS)]
    yield from table(head, ([", ".join(names), *cells] for cells, names in groups.items()))


def _together(model: nt.Model, curvature: str, solver: str, rules: list[str]) -> str:
    """Returns the rules that go with a curvature and a solver."""
    found = list[str]()
    for rule in rules:
        try:
            nt.SecondOrder(model, curvature, solver, rule)
        except NewtritonError:
            continue
        found.append(rule)
    return "all" if found == rules else ", ".join(found)


TABLES: dict[str, Callable[..., Iterator[str]]] = {
    "defaults": defaults,
    "combinations": combinations,
}
