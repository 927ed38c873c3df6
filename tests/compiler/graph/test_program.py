"""Programs: keys tell values apart, and say how a graph prints them."""

from __future__ import annotations

import pytest

from newtriton.compiler.curvature.factors import Diagonal, GradientsGram, InputsGram, InputsMean
from newtriton.compiler.curvature.jacobian import Jacobian
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N
from newtriton.compiler.graph.program import Input, Output, declared, simplified
from newtriton.compiler.values import Data, Direction, Form, Gradient, Hvp, Labels, Losses

NAMES = {
    Losses(): "losses",
    Gradient("0.weight"): "gradient:0.weight",
    Hvp("0.weight"): "hvp:0.weight",
    Form(0, 1): "form:0,1",
    Direction(1, "0.weight"): "v1:0.weight",
    Jacobian(2): "jacobian:2",
    InputsGram(""): "A:",
    InputsMean("0"): "mean:0",
    GradientsGram("0"): "G:0",
    Diagonal("1.bias"): "diagonal:1.bias",
}


@pytest.mark.parametrize("key", NAMES, ids=str)
def test_the_text_of_a_key_is_the_name_that_graphs_print(key: Input | Output) -> None:
    assert str(key) == NAMES[key]


def test_keys_of_one_content_are_different_keys() -> None:
    assert Gradient("a") != Hvp("a")
    assert len({Gradient("a"), Hvp("a"), Gradient("a")}) == 2


def test_keys_of_a_class_with_the_same_content_are_one_object() -> None:
    assert Form(0, 1) is Form(0, 1) and Losses() is Losses()
    assert Form(0, 1) is not Form(1, 1)


def test_a_program_reads_what_its_graph_reads() -> None:
    x, y = ops.input_("x", (N, 3)), ops.input_("y", (N, 3))
    doubled = ops.scale(x, 2.0)
    outputs = simplified({Losses(): ops.reduce_sum(doubled, (1,)), Gradient("w"): ops.dot(x, x)})
    program = declared("name", outputs, {Data("x"): x, Labels(): y}, frozenset())
    assert program.inputs == {Data("x"): x}
    assert program.graph.outputs == {
        "losses": outputs[Losses()],
        "gradient:w": program.outputs[Gradient("w")],
    }
    assert str(program) == str(program.graph) and program.name == "name"
    assert program.feed({Data("x"): 1, Labels(): 2}) == {x: 1}
    assert program.results({outputs[Losses()]: 3, outputs[Gradient("w")]: 4}) == {
        Losses(): 3, Gradient("w"): 4,
    }  # fmt: skip
    after = declared("after", outputs, {Data("x"): x}, frozenset({doubled}))
    assert after.graph.given == {doubled}
