"""The graph: interned nodes with types, and named outputs over them.

A `Node` is op, inputs, attributes and type; equal nodes are one object, so common subexpressions
cannot arise. Images are N×H×W×C; convolution weights O×kh×kw×C; N, the batch size, is a symbol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from .interning import interned


class Op(str, Enum):
    """The closed op set. Every table of rules has an entry for every op; tests walk this list."""

    # leaves: data, parameters, numbers
    INPUT = "input"
    PARAM = "param"
    CONST = "const"
    # elementwise, one scalar expression over operands of one shape
    MAP = "map"
    # contractions; matmul and conv take an optional bias as third operand
    MATMUL = "matmul"
    CONV = "conv"
    CONV_INPUT_GRAD = "conv_input_grad"
    CONV_WEIGHT_GRAD = "conv_weight_grad"
    # sums, copies and views
    REDUCE_SUM = "reduce_sum"
    BROADCAST = "broadcast"
    RESHAPE = "reshape"
    TRANSPOSE = "transpose"
    SLICE = "slice"
    PAD = "pad"
    CONCAT = "concat"
    # pooling: linear averages, and gathers at the indices of maxima
    AVG_POOL = "avg_pool"
    AVG_UNPOOL = "avg_unpool"
    ARGMAX_POOL = "argmax_pool"
    GATHER_MAX = "gather_max"
    SCATTER_MAX = "scatter_max"
    # rows: of a table, of labels, their maxima and the logarithms of their sums of exponentials
    GATHER_ROWS = "gather_rows"
    SCATTER_ROWS = "scatter_rows"
    ONE_HOT = "one_hot"
    SAMPLE = "sample"
    ROW_MAX = "row_max"
    LOG_SUM_EXP = "log_sum_exp"
    # Kronecker statistics
    GRAM = "gram"
    PATCH_GRAM = "patch_gram"
    # a function of the eigenvalues of symmetric matrices
    SPECTRAL = "spectral"
    # the sum over the ranks that hold parts of a batch, equal on all of them
    ALL_SUM = "all_sum"


LEAVES = frozenset({Op.INPUT, Op.PARAM, Op.CONST})
CONTRACTIONS = frozenset({Op.MATMUL, Op.CONV, Op.CONV_INPUT_GRAD, Op.CONV_WEIGHT_GRAD})
VIEWS = frozenset({Op.BROADCAST, Op.RESHAPE, Op.TRANSPOSE, Op.SLICE})


class Batched:
    """A multiple of the batch size N as a dimension: `N`, or `N * 4`. Equal ones are one object.

    Attributes:
        times: the number of which it is the product with N.

    Examples:
        >>> N * 4
        N·4
        >>> N * 4 is N * 2 * 2
        True
    """

    __slots__ = ("times",)
    times: int
    _made: ClassVar[dict[int, Batched]] = {}

    def __new__(cls, times: int) -> Batched:  # noqa: D102
        found = cls._made.get(times)
        if found is None:
            made = super().__new__(cls)
            made.times = times
            found = cls._made.setdefault(times, made)
        return found

    def __reduce__(self) -> tuple[type[Batched], tuple[int]]:
        return Batched, (self.times,)

    def __mul__(self, number: int) -> Batched:
        return Batched(self.times * number)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return "N" if self.times == 1 else f"N·{self.times}"


N = Batched(1)
Dim = Any  # an int, or Batched
Shape = tuple[Dim, ...]


def is_batched(dim: Dim) -> bool:
    """Whether a dimension is a multiple of the batch size."""
    return isinstance(dim, Batched)


def batch_axis(shape: Shape) -> int | None:
    """Returns the axis that is a multiple of the batch size; None where there is none."""
    return next((axis for axis, dim in enumerate(shape) if is_batched(dim)), None)


def product(dims: Iterable[Dim]) -> Dim:
    """Returns the product of dimensions, of which at most one is a multiple of the batch size.

    Examples:
        >>> product((2, N * 4, 3))
        N·24
    """
    return math.prod(dims, start=1)


def per_sample(shape: Iterable[Dim]) -> int:
    """Returns the product of dimensions for each sample: N counts as 1.

    Examples:
        >>> per_sample((N * 4, 3))
        12
    """
    return math.prod(d.times if is_batched(d) else d for d in shape)


@dataclass(frozen=True)
class Type:
    """The type of a value.

    Attributes:
        shape: its dimensions, integers or multiples of N, of which there is at most one.
        kind: "float", or "int" for labels and indices.
    """

    shape: Shape
    kind: str = "float"

    def __str__(self) -> str:
        text = show(self.shape)
        return text if self.kind == "float" else f"{text} {self.kind}"

    def numel(self, batch: int) -> int:
        """Returns the number of elements at a batch size."""
        return math.prod(concrete(self.shape, batch))


def show(shape: Iterable[Dim]) -> str:
    """Returns a shape as people write it, "N×8×8×1" for example."""
    return "×".join(map(str, shape)) or "scalar"


def concrete(shape: Shape, batch: int) -> tuple[int, ...]:
    """Returns the shape at a batch size."""
    return tuple(batch * d.times if is_batched(d) else d for d in shape)


_place: ContextVar[str] = ContextVar("place", default="")
_interned: WeakValueDictionary[tuple, Node] = WeakValueDictionary()


@contextmanager
def made_at(place: str) -> Iterator[None]:
    """Lets nodes made inside remember `place`, "layer 3 (Conv2d)" for example, for errors."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


class Node:
    """One value of a graph: frozen, interned, equal by identity.

    Attributes:
        op: the op that computes it.
        inputs: the op's operands.
        attributes: the op's attributes by name, `node["axes"]` for short.
        type: its shape and kind.
        place: where in the network it was made, for errors.
    """

    __slots__ = ("__weakref__", "attributes", "inputs", "op", "place", "type")
    op: Op
    inputs: tuple[Node, ...]
    attributes: Mapping[str, Any]
    type: Type
    place: str

    def __new__(  # noqa: D102
        cls, op: Op, inputs: tuple[Node, ...], attributes: dict[str, Any], type: Type
    ) -> Node:
        key = (op, inputs, tuple(sorted(attributes.items(), key=lambda kv: kv[0])), type)
        found = _interned.get(key)
        return found or interned(_interned, key, lambda: cls._made(op, inputs, attributes, type))

    @classmethod
    def _made(
        cls, op: Op, inputs: tuple[Node, ...], attributes: dict[str, Any], type: Type
    ) -> Node:
        made = super().__new__(cls)
        for name, value in (
            ("op", op),
            ("inputs", inputs),
            ("attributes", MappingProxyType(attributes)),
            ("type", type),
            ("place", _place.get()),
        ):
            object.__setattr__(made, name, value)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Node is frozen; cannot set {name}")

    @property
    def shape(self) -> Shape:
        """The shape of the value."""
        return self.type.shape

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes[attribute]

    def __repr__(self) -> str:
        operands = ", ".join(str(i.type) for i in self.inputs)
        made = f", made at {self.place}" if self.place else ""
        return f"{self.op.value}({operands}) → {self.type}{made}"


def topological(
    outputs: Iterable[Node], stop: Callable[[Node], bool] = lambda _: False
) -> list[Node]:
    """Returns every node that `outputs` need, operands first.

    Args:
        outputs: the nodes at which to begin.
        stop: says at which nodes to end; they are in the list, but not what they need.
    """
    order: dict[Node, None] = {}
    stack = [(node, False) for node in reversed(list(outputs))]
    while stack:
        node, entered = stack.pop()
        if node in order:
            continue
        if entered or stop(node):
            order[node] = None
            continue
        stack.append((node, True))
        stack.extend((i, False) for i in reversed(node.inputs) if i not in order)
    return list(order)


def structure(roots: Iterable[Node]) -> Iterator[str]:
    """Yields what each node computes of which others: equal for equal graphs, whoever made them.

    Where in a network a node was made is left out: an interned one keeps its first place.
    """
    numbers = dict[Node, int]()
    for node in topological(roots):
        numbers[node] = len(numbers)
        inputs = [numbers[operand] for operand in node.inputs]
        attributes = sorted((name, repr(value)) for name, value in node.attributes.items())
        yield repr((node.op.value, inputs, attributes, str(node.type)))


def rewrite(
    outputs: Mapping[str, Node], rule: Callable[[Node, tuple[Node, ...]], Node]
) -> dict[str, Node]:
    """Rebuilds outputs bottom-up: `rule(node, new_inputs)` returns each node's replacement."""
    new: dict[Node, Node] = {}
    for node in topological(outputs.values()):
        new[node] = rule(node, tuple(new[i] for i in node.inputs))
    return {name: new[node] for name, node in outputs.items()}


@dataclass(frozen=True, eq=False)
class Graph:
    """Named outputs over nodes.

    Attributes:
        name: what the graph is called.
        outputs: the nodes that it computes, by name.
        given: nodes whose values come from outside besides the leaves, as those of the tape.
    """

    name: str
    outputs: Mapping[str, Node]
    given: frozenset[Node] = frozenset()

    def nodes(self) -> list[Node]:
        """Returns the nodes in execution order, from the given ones and the leaves up."""
        return topological(self.outputs.values(), stop=self.given.__contains__)

    def computed(self) -> list[Node]:
        """Returns the nodes that this graph computes."""
        return [n for n in self.nodes() if n.op not in LEAVES and n not in self.given]

    def line(self, node: Node, number: Mapping[Node, int]) -> str:
        """Returns a line that says what a node computes.

        Args:
            node: the node.
            number: the numbers of all nodes, by which it and its operands are called.
        """
        if node in self.given and node.op not in LEAVES:
            text = f"tape {node.op.value}"
        else:
            attributes = " ".join(f"{k}={v}" for k, v in node.attributes.items())
            operands = " ".join(f"%{number[x]}" for x in node.inputs)
            text = " ".join(filter(None, (node.op.value, operands, attributes)))
        place = f"   # {node.place}" if node.place else ""
        return f"%{number[node]:<4} {node.type!s:<18} {text}{place}"

    def __str__(self) -> str:
        """Returns a line for each node and each output."""
        number = {node: i for i, node in enumerate(self.nodes())}
        lines = [f"{self.name}: {len(self.computed())} ops"]
        lines += [f"  {self.line(node, number)}" for node in number]
        lines += [f"  {name} = %{number[node]}" for name, node in self.outputs.items()]
        return "\n".join(lines)
