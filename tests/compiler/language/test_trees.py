"""Trees: names of their values, and the same structure again."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.language.trees import mapped, named, rebuilt

TREES: dict[str, tuple[Any, dict[str, int]]] = {
    "alone": (1, {"x": 1}),
    "tuple": ((1, 2), {"0": 1, "1": 2}),
    "list": ([1, 2], {"0": 1, "1": 2}),
    "dictionary": ({"b": 1, "a": 2}, {"b": 1, "a": 2}),
    "mapping": (UserDict({"ids": 3}), {"ids": 3}),
}


@pytest.mark.parametrize(("tree", "values"), TREES.values(), ids=TREES)
def test_every_value_has_a_name_and_its_place(tree: Any, values: dict[str, int]) -> None:
    assert named(tree) == values and list(named(tree)) == list(values)
    expected = tuple(tree) if isinstance(tree, list) else tree
    assert rebuilt(tree, values) == expected
    assert named(mapped(lambda a, b: a + b, tree, tree)) == {n: 2 * v for n, v in values.items()}


@pytest.mark.parametrize("tree", [(), {}, {1: 2}, (1, [2]), {"a": {"b": 1}}], ids=str)
def test_what_is_no_tree_is_refused(tree: Any) -> None:
    with pytest.raises(NewtritonError, match=r"give at least one|give strings|not nested"):
        named(tree)


def test_trees_of_different_names_do_not_go_together() -> None:
    with pytest.raises(NewtritonError, match="inputs a where others have 0, 1"):
        mapped(max, (1, 2), {"a": 1})
