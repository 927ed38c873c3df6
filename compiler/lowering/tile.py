"""The expressions that generated code computes on a tile: positions, elements and conditions.

A `Term` is one expression of the tile language. Its class says what it stands for: an `Index` is an
integer position, a `Value` an element (a float, or an int such as a label), a `Mask` a condition,
a `Pointer` a place in memory. A term knows the axes of the tile along which it varies and the
coordinates that it depends on, so nobody reads this from printed text. Terms are frozen and
interned: equal terms are one object. `printing` writes them as Triton.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TypeVar
from weakref import WeakValueDictionary

from ..graph.interning import interned


class Axis(Enum):
    """The two axes of a tile."""

    ROWS = "rows"
    COLUMNS = "columns"


Spans = frozenset[Axis]
NOWHERE: Spans = frozenset()
ROWS: Spans = frozenset({Axis.ROWS})
COLUMNS: Spans = frozenset({Axis.COLUMNS})
TILE: Spans = ROWS | COLUMNS


class Form(Enum):
    """How a term is made of its operands; `printing` has an entry for every form."""

    # without operands
    CONSTANT = "constant"
    NAME = "name"
    UNKNOWN = "unknown"
    # numbers
    ADD = "add"
    SUBTRACT = "subtract"
    MULTIPLY = "multiply"
    DIVIDE = "divide"
    FLOOR_DIVIDE = "floor_divide"
    MODULO = "modulo"
    # conditions
    AT_LEAST = "at_least"
    BELOW = "below"
    ABOVE = "above"
    AT_MOST = "at_most"
    EQUAL = "equal"
    DIFFERENT = "different"
    AND = "and"
    OR = "or"
    # a choice by a condition, a position as an element or an element as one, functions and memory
    WHERE = "where"
    POSITION = "position"
    CALL = "call"
    ALONG_ROW = "along_row"
    DOWN_COLUMNS = "down_columns"
    LOAD = "load"


class Along(Enum):
    """What is made of all elements of a row."""

    SUM = "sum"
    MAX = "max"
    DRAW = "draw"


T = TypeVar("T", bound="Term")
_interned: WeakValueDictionary[tuple, Term] = WeakValueDictionary()


class Term:
    """An expression: frozen, interned, equal by identity.

    Attributes:
        form: how it is made of its operands.
        args: the operands.
        detail: what the form needs besides: a constant's number, a name, a function, a memory.
        spans: the axes of the tile along which it varies.
        coordinates: the axes of the kernel's space whose coordinates occur in it.
    """

    __slots__ = ("__weakref__", "args", "coordinates", "detail", "form", "spans")
    form: Form
    args: tuple[Term, ...]
    detail: object
    spans: Spans
    coordinates: frozenset[int]

    def __new__(  # noqa: D102
        cls: type[T],
        form: Form,
        args: Sequence[Term] = (),
        detail: object = None,
        spans: Spans | None = None,
        coordinates: frozenset[int] | None = None,
    ) -> T:
        args = tuple(args)
        if spans is None:
            spans = NOWHERE.union(*(a.spans for a in args))
        if coordinates is None:
            coordinates = frozenset[int]().union(*(a.coordinates for a in args))
        key = (cls, form, args, type(detail), detail, spans, coordinates)
        made = cls._made
        return _interned.get(key) or interned(  # type: ignore[return-value]
            _interned, key, lambda: made(form, args, detail, spans, coordinates)
        )

    @classmethod
    def _made(
        cls: type[T],
        form: Form,
        args: tuple[Term, ...],
        detail: object,
        spans: Spans,
        coordinates: frozenset[int],
    ) -> T:
        made = object.__new__(cls)
        made.form, made.args, made.detail = form, args, detail
        made.spans, made.coordinates = spans, coordinates
        return made

    @classmethod
    def named(cls: type[T], name: str, spans: Spans = NOWHERE) -> T:
        """Returns the term that a name of the generated function stands for."""
        return cls(Form.NAME, detail=name, spans=spans)

    @property
    def atomic(self) -> bool:
        """Whether it is a constant or a name: naming it would save nothing."""
        return self.form in (Form.CONSTANT, Form.NAME)

    def __repr__(self) -> str:
        parts = [*([] if self.detail is None else [repr(self.detail)]), *map(repr, self.args)]
        return f"{self.form.value}({', '.join(parts)})"


class Index(Term):
    """An integer position, in memory or along an axis; arithmetic folds constants, 0 and 1."""

    __slots__ = ()

    @property
    def number(self) -> int | None:
        """The number that it is whatever the tile, or None."""
        return self.detail if isinstance(self.detail, int) else None

    def __add__(self, other: Index | int) -> Index:
        other = position(other)
        if self.number is not None and other.number is not None:
            return position(self.number + other.number)
        if other is ZERO or self is ZERO:
            return self if other is ZERO else other
        if other.number is not None and other.number < 0:
            return self - -other.number
        return Index(Form.ADD, (self, other))

    def __sub__(self, other: Index | int) -> Index:
        other = position(other)
        if self.number is not None and other.number is not None:
            return position(self.number - other.number)
        return self if other is ZERO else Index(Form.SUBTRACT, (self, other))

    def __mul__(self, other: Index | int) -> Index:
        other = position(other)
        if self.number is not None and other.number is not None:
            return position(self.number * other.number)
        if self is ZERO or other is ZERO:
            return ZERO
        if self is ONE or other is ONE:
            return self if other is ONE else other
        return Index(Form.MULTIPLY, (self, other))

    def __floordiv__(self, other: Index | int) -> Index:
        other = position(other)
        if self.number is not None and other.number:
            return position(self.number // other.number)
        return self if other is ONE else Index(Form.FLOOR_DIVIDE, (self, other))

    def __mod__(self, other: Index | int) -> Index:
        other = position(other)
        if self.number is not None and other.number:
            return position(self.number % other.number)
        return ZERO if other is ONE else Index(Form.MODULO, (self, other))

    def at_least(self, bound: int) -> Mask:
        """Returns whether it is ≥ bound."""
        return Mask(Form.AT_LEAST, (self, position(bound)))

    def below(self, bound: int) -> Mask:
        """Returns whether it is < bound."""
        return Mask(Form.BELOW, (self, position(bound)))

    def inside(self, start: int, stop: int) -> Mask:
        """Returns whether it is in start … stop − 1."""
        return self.at_least(start) & self.below(stop)

    def as_value(self) -> Value:
        """Returns the position as an element, as the places of maxima are stored."""
        return Value(Form.POSITION, (self,))


class Pointer(Term):
    """A place in memory: a buffer's first element, and positions behind it."""

    __slots__ = ()

    def __add__(self, offset: Index) -> Pointer:
        return self if offset is ZERO else Pointer(Form.ADD, (self, offset))

    def load(self, mask: Mask | None, dtype: str | None = None) -> Value:
        """Returns the element that lies there, 0 where the mask does not hold.

        Args:
            mask: where to read.
            dtype: the type to convert it to, if it is stored in another one.
        """
        return Value(Form.LOAD, (self,) if mask is None else (self, mask), dtype, self.spans)


class Mask(Term):
    """A condition; where a function takes `Mask | None`, None holds everywhere."""

    __slots__ = ()

    def __and__(self, other: Mask | None) -> Mask:
        return self if other is None else Mask(Form.AND, (self, other))

    def __or__(self, other: Mask) -> Mask:
        return Mask(Form.OR, (self, other))

    def indicator(self) -> Value:
        """Returns 1 where it holds, 0 elsewhere."""
        return where(self, number(1.0), number(0.0))


class Value(Term):
    """An element of a tensor: a float, or an int where the tensor holds labels or places.

    Sums and products are written as they stand: an expression was simplified before it came here.
    """

    __slots__ = ()

    def __add__(self, other: Value) -> Value:
        return Value(Form.ADD, (self, other))

    def __mul__(self, other: Value) -> Value:
        return Value(Form.MULTIPLY, (self, other))

    def __truediv__(self, other: Value) -> Value:
        return Value(Form.DIVIDE, (self, other))

    def as_position(self) -> Index:
        """Returns an int element as a position, as rows of a table are chosen."""
        return Index(Form.POSITION, (self,))

    def equals(self, other: Index | Value) -> Mask:
        """Returns whether both are one number."""
        return Mask(Form.EQUAL, (self, other))

    def differs(self, other: Value) -> Mask:
        """Returns whether they are different; a NaN differs from itself."""
        return Mask(Form.DIFFERENT, (self, other))

    def above(self, other: Value) -> Mask:
        """Returns whether it is > other."""
        return Mask(Form.ABOVE, (self, other))

    def below(self, other: Value) -> Mask:
        """Returns whether it is < other."""
        return Mask(Form.BELOW, (self, other))

    def at_most(self, other: Value) -> Mask:
        """Returns whether it is ≤ other."""
        return Mask(Form.AT_MOST, (self, other))


def position(at: Index | int) -> Index:
    """Returns a constant position; an index is returned as it is."""
    return at if isinstance(at, Index) else Index(Form.CONSTANT, detail=at)


def number(constant: float) -> Value:
    """Returns a constant element, int or float as given."""
    return Value(Form.CONSTANT, detail=constant)


def coordinate(axis: int, along: Axis) -> Index:
    """Returns the coordinate of an axis of the kernel's space, along rows or columns of tiles."""
    return Index(
        Form.NAME, detail=f"a{axis}", spans=frozenset({along}), coordinates=frozenset({axis})
    )


ZERO, ONE = position(0), position(1)
BATCH = Index.named("batch")  # the batch size, an argument of every generated function
UNKNOWN = Value(Form.UNKNOWN)  # the element that a reader has not read; it cannot be printed

V = TypeVar("V", Index, Value)


def in_loop(terms: Iterable[Term]) -> bool:
    """Whether a term varies with the index of a loop, which is none of the tile's."""
    waiting, seen = [*terms], set[Term]()
    while waiting:
        term = waiting.pop()
        if term.form is Form.NAME and not term.spans and term is not BATCH:
            return True
        waiting += [x for x in term.args if x not in seen]
        seen.update(term.args)
    return False


def where(condition: Mask, value: V, otherwise: V) -> V:
    """Returns `value` where the condition holds, `otherwise` elsewhere."""
    return type(value)(Form.WHERE, (condition, value, otherwise))


def add(terms: Sequence[Value]) -> Value:
    """Returns the sum of at least one element, from left to right."""
    return terms[0] if len(terms) == 1 else Value(Form.ADD, terms)


def call(function: str, *args: Term, spans: Spans | None = None) -> Value:
    """Returns a function of Triton's, or of `kernels/functions.py`, applied to terms."""
    return Value(Form.CALL, args, function, spans)


# --- the tile itself ------------------------------------------------------------------------------

ROW, COLUMN = Index.named("r", ROWS), Index.named("c", COLUMNS)
ELEMENT = Index.named("e", TILE)  # the position in row-major order: r · columns + c
IN_ROWS, IN_COLUMNS = Mask.named("mr", ROWS), Mask.named("mc", COLUMNS)
INSIDE = IN_ROWS & IN_COLUMNS
_WITHIN = {Axis.ROWS: IN_ROWS, Axis.COLUMNS: IN_COLUMNS}


def within(spans: Spans, valid: Mask | None = None) -> Mask | None:
    """Returns whether a term of these spans lies inside the tensor, and is valid."""
    masks = [*(_WITHIN[axis] for axis in Axis if axis in spans), *([valid] if valid else [])]
    if not masks:
        return None
    result = masks[0]
    for mask in masks[1:]:
        result = result & mask
    return result
