"""The keywords of what a name stands for: given as text, `name=value`, checked, and listed."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..compiler.graph.errors import NewtritonError, meant, quoted
from .references import named, needed, users_code

WORDS = {"true": True, "false": False, "none": None}
EXPECTED = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    type(None): "none",
}
LISTS = (Collection, Sequence)  # of text, separated by commas


@dataclass(frozen=True)
class Part:
    """A part of the user's, or what makes one.

    Attributes:
        name: the keyword that it is given for.
        text: what named it.
        found: the part; or a class or function that makes it, of the model or of nothing.
    """

    name: str
    text: str
    found: Any

    def made(self, model: Any) -> Any:
        """Returns the part.

        Raises:
            NewtritonError: it cannot be made.
        """
        if not (inspect.isclass(self.found) or inspect.isroutine(self.found)):
            return self.found
        option = f"--set {self.name}={self.text}"
        with users_code(option):
            takes = inspect.signature(self.found).parameters
            given = {"model": model} if "model" in takes else {}
            if missing := needed(self.found, given):
                raise NewtritonError(
                    f"{option} needs {', '.join(missing)}: give an object, or a class or "
                    "function that needs nothing but the model"
                )
            return self.found(**given)


@dataclass(frozen=True)
class Keyword:
    """A keyword that can be given as text.

    Attributes:
        name: its name.
        default: its value unless given.
        kinds: the types that it takes; a tuple of types for a tuple of values.
        text: what the documentation says of it.
    """

    name: str
    default: object
    kinds: tuple[Any, ...]
    text: str = ""

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        return ", or ".join(dict.fromkeys(_expected(kind) for kind in self.kinds))

    def read(self, text: str) -> object:
        """Returns the value that text stands for.

        Raises:
            NewtritonError: it is none that the keyword takes.
        """
        if any(map(_is_part, self.kinds)) and ":" in text:
            return Part(self.name, text, named(text, {}, f"--set {self.name}"))
        value = _literal(text)
        for kind in self.kinds:
            fits, taken = _as(kind, value, text)
            if fits:
                return taken
        if any(map(_is_function, self.kinds)) and ":" in text:
            return named(text, {}, f"--set {self.name}")
        raise NewtritonError(f"--set {self.name}={text}: give {self.expected}")


@dataclass(frozen=True)
class Entry:
    """Something that can be named, and how it is made.

    Attributes:
        make: the function or class that the name stands for.
        keywords: the keyword of `make` under which it takes each option of the command line.
        cls: a class of torch.optim, which `make` takes and passes its own further keywords on to.
        defaults: keywords that the name stands for as well.
    """

    make: Callable[..., Any]
    keywords: Mapping[str, str] = field(default_factory=dict)
    cls: type | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, model: object, **given: Any) -> Any:
        """Makes it, with keywords of `settable`."""
        classes = () if self.cls is None else (self.cls,)
        given = {n: v.made(model) if isinstance(v, Part) else v for n, v in given.items()}
        return self.make(model, *classes, **{**self.defaults, **given})

    def default(self, option: str) -> object:
        """Returns what an option is unless given."""
        return self.settable[self.keywords[option]].default

    @property
    def settable(self) -> dict[str, Keyword]:
        """The keywords that text can give, by name."""
        found = {k.name: k for k in _keywords(self.make)}
        if self.cls is not None:
            found |= {k.name: k for k in _keywords(self.cls)}
        defaults = self.defaults.items()
        changed = {n: Keyword(n, value, found[n].kinds, found[n].text) for n, value in defaults}
        return found | changed

    def read(self, settings: Iterable[str], name: str) -> dict[str, object]:
        """Returns the keywords that `name=value` texts give, the last of a name counting.

        Args:
            settings: the texts.
            name: what the entry is called in errors.

        Raises:
            NewtritonError: there is no such keyword, or a value is none that it takes.
        """
        given, known = dict[str, object](), self.settable
        for setting in settings:
            keyword, sign, text = setting.partition("=")
            if not sign:
                raise NewtritonError(f"--set {setting}: write it as name=value")
            if keyword not in known:
                raise NewtritonError(
                    f"--set {setting}: {name} has no {quoted(keyword)}; it takes {', '.join(known)}"
                    f"{meant(keyword, known)}"
                )
            given[keyword] = known[keyword].read(text)
        return given

    def listed(self) -> str:
        """Returns a table of the keywords with their defaults and what they are."""
        rows = []
        for keyword in self.settable.values():
            what = re.sub(r" \(default: [^)]*\)", "", keyword.text)  # not those of `defaults`
            what = textwrap.shorten(what, 120, placeholder=" …") or keyword.expected
            rows.append((f"{keyword.name}={_shown(keyword.default)}", what))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"  {name.ljust(width)}  {what}" for name, what in rows)


def _keywords(make: Callable[..., Any]) -> Iterable[Keyword]:
    """Yields the keywords of a function or class that have defaults and can be text."""
    for parameter in inspect.signature(make).parameters.values():
        if parameter.default is inspect.Parameter.empty:
            continue
        kinds = tuple(_kinds(_annotation(make, parameter)))
        if kinds:
            text = _documented(make).get(parameter.name, "")
            yield Keyword(parameter.name, parameter.default, kinds, text)


def _annotation(make: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Returns a parameter's annotation as a type; what cannot be found out is its default's."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        function = inspect.unwrap(make.__init__ if isinstance(make, type) else make)
        try:
            return eval(annotation, getattr(function, "__globals__", {}))
        except Exception:  # a name that is there for type checkers alone
            return type(parameter.default)
    return type(parameter.default) if annotation is inspect.Parameter.empty else annotation


def _kinds(annotation: Any) -> Iterable[Any]:
    """Yields the types that text can stand for, text itself last."""
    parts = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    known = [
        part
        for part in parts
        if part in EXPECTED
        or _elements(part)
        or _is_list(part)
        or _is_function(part)
        or _is_part(part)
    ]
    if not any(part is not type(None) for part in known):
        return []
    return sorted(known, key=lambda part: part is str)


def _is_union(annotation: Any) -> bool:
    """Whether it is several types, in either of the two ways to write them."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _is_list(kind: Any) -> bool:
    """Whether it is a list of text."""
    return typing.get_origin(kind) in LISTS and typing.get_args(kind) == (str,)


def _is_function(kind: Any) -> bool:
    """Whether it is a function, which is named as module:attribute."""
    return typing.get_origin(kind) is Callable


def _is_part(kind: Any) -> bool:
    """Whether it is a protocol, such as `Solver`: a part that is named as module:attribute."""
    return typing.Protocol in getattr(kind, "__bases__", ())


def _elements(kind: Any) -> list[tuple[Any, ...]]:
    """Returns the kinds of each element of a tuple of numbers; nothing of what is none."""
    if typing.get_origin(kind) is not tuple:
        return []
    found = [tuple(_kinds(part)) for part in typing.get_args(kind)]
    return found if all(found) else []


def _expected(kind: Any) -> str:
    """Says what a value of this type is."""
    if _is_list(kind):
        return "names separated by commas"
    if _is_function(kind):
        return "a function of yours, module:attribute"
    if _is_part(kind):
        return "a part of yours, module:attribute"
    if elements := _elements(kind):
        return f"{len(elements)} values separated by commas, each {_expected(elements[0][0])}"
    return EXPECTED[kind]


def _literal(text: str) -> object:
    """Returns the number, word or tuple that text is, or the text."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _as(kind: Any, value: object, text: str) -> tuple[bool, object]:
    """Returns whether a value is of this type, and the value as the type has it."""
    if _is_list(kind):
        return True, [part.strip() for part in text.split(",") if part.strip()]
    if elements := _elements(kind):
        if not isinstance(value, (tuple, list)) or len(value) != len(elements):
            return False, None
        found = [_as(k[0], part, str(part)) for k, part in zip(elements, value, strict=True)]
        return all(fits for fits, _ in found), tuple(part for _, part in found)
    if _is_function(kind) or _is_part(kind):
        return False, None
    if kind is str:
        return True, value if isinstance(value, str) else text
    if kind is float and type(value) in (int, float):
        return True, float(value)  # type: ignore[arg-type]
    return type(value) is kind, value


def _shown(value: object) -> str:
    """Returns a value as it would be given."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(_shown, value))
    known = next((word for word, meaning in WORDS.items() if meaning is value), None)
    return str(value) if known is None else known


def _documented(make: Callable[..., Any]) -> dict[str, str]:
    """Returns what docstrings say of arguments, those of base classes too."""
    owners = reversed(make.__mro__) if isinstance(make, type) else [make]
    found = dict[str, str]()
    for owner in owners:
        text = inspect.cleandoc(owner.__doc__ or "")
        section = re.search(r"^Args:\n((?:    .*\n|\n)*)", text + "\n", re.MULTILINE)
        arguments = section.group(1) if section else ""
        pairs = re.findall(r"^    (\w+)(?: \(.*?\))?: (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
        found |= {name: " ".join(said.split()) for name, said in pairs}
    return found
