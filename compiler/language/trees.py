"""One value, a tuple of values, or a dictionary of them: the one place that knows these structures.

The inputs of a network are such a tree, of shapes when it is compiled, of nodes when it is traced,
of tensors when it runs. Each value has a name: its key, its place in the tuple, "x" where it is
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..graph.errors import NewtritonError, quoted
from ..graph.options import check_mapping

if TYPE_CHECKING:
    from torch import Tensor

ALONE = "x"

T = TypeVar("T")
Tree: TypeAlias = "Tensor | Sequence[Tensor] | Mapping[str, Tensor]"


def named(tree: Any) -> dict[str, Any]:
    """Returns the values of a tree by name.

    Raises:
        NewtritonError: it is empty, nested, or has keys that are no strings.
    """
    if isinstance(tree, Mapping):
        found = check_mapping("the inputs", tree)
    elif isinstance(tree, (tuple, list)):
        found = {str(i): value for i, value in enumerate(tree)}
    else:
        return {ALONE: tree}
    if not found:
        raise NewtritonError(f"the inputs are {quoted(tree)}: give at least one")
    for name, value in found.items():
        if isinstance(value, (Mapping, tuple, list)):
            raise NewtritonError(
                f"input {quoted(name)} is a {type(value).__name__}: give a torch.Tensor, or a "
                "tuple or a dictionary of them, not nested"
            )
    return found


def is_several(x: Any) -> bool:
    """Whether x is a tree of several tensors or arrays, and no nested list of numbers."""
    if isinstance(x, Mapping):
        return True
    return isinstance(x, (tuple, list)) and bool(x) and all(hasattr(part, "shape") for part in x)


def count(tree: Any) -> int:
    """Returns the number of samples in a tree of tensors, that of the first one."""
    return len(next(iter(named(tree).values())))


def rows(tree: Any, index: Any) -> Any:
    """Returns the samples at an index, a slice or a tensor of numbers."""
    if isinstance(index, slice):
        return mapped(lambda x: x[index], tree)
    return mapped(lambda x: x[index.to(x.device)], tree)


def rebuilt(tree: Any, values: Mapping[str, T]) -> Any:
    """Returns values by name in the structure of a tree; a list becomes a tuple."""
    if isinstance(tree, Mapping):
        return dict(values)
    return tuple(values.values()) if isinstance(tree, (tuple, list)) else values[ALONE]


def mapped(function: Callable[..., T], tree: Any, *others: Any) -> Any:
    """Returns the tree of `function(value, *values of the others)`.

    Raises:
        NewtritonError: the others have other names than the tree.
    """
    values, rest = named(tree), [named(other) for other in others]
    for other in rest:
        if other.keys() != values.keys():
            raise NewtritonError(
                f"inputs {', '.join(other)} where others have {', '.join(values)}: give all "
                "batches the same inputs"
            )
    found = {n: function(value, *(other[n] for other in rest)) for n, value in values.items()}
    return rebuilt(tree, found)
