"""Keys: one text for each value, and equal where they mean the same."""

from __future__ import annotations

import pytest

import newtriton as nt
from newtriton.compiler import values
from newtriton.compiler.graph.program import Input, Key, Output
from newtriton.compiler.language.network import trace
from newtriton.compiler.programs import Programs

KEYS = [v for v in vars(values).values() if isinstance(v, type) and issubclass(v, Key)]
CLASSES = [key for key in KEYS if key not in (Input, Output)]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (values.Data("ids"), "x:ids"),
        (values.ParameterValue("0.weight"), "param:0.weight"),
        (values.RunningValue("1.running_mean"), "running:1.running_mean"),
        (values.Direction(2, "0.bias"), "v2:0.bias"),
        (values.Gradient("0.weight"), "gradient:0.weight"),
        (values.Form(0, 1), "form:0,1"),
    ],
)
def test_a_key_is_printed_as_its_kind_and_what_it_is_of(key: Key, text: str) -> None:
    assert str(key) == text


def test_every_class_has_a_kind_of_its_own() -> None:
    kinds = [key.kind for key in CLASSES]
    assert len(set(kinds)) == len(kinds) == 20


def test_what_a_program_reads_is_nothing_that_it_gives() -> None:
    assert all(issubclass(key, Input) != issubclass(key, Output) for key in CLASSES)


def test_equal_keys_find_the_same_value() -> None:
    found = {values.Hvp("w"): 1, values.Ggnvp("w"): 2, values.Gradient("w"): 3}
    assert found[values.Hvp("w")] == 1 and found[values.Gradient("w")] == 3
    assert values.Hvp("b") not in found
    assert values.Form(0, 1) != values.Form(1, 0)


def test_a_linearization_reads_and_gives_one_value_for_each_parameter_and_statistic() -> None:
    net = nt.Sequential(nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
    traced = trace(net, (3, 2, 2), nt.MSELoss())
    program = Programs(traced).linearize
    read = {key for key in program.inputs if isinstance(key, values.ParameterValue)}
    given = {key for key in program.outputs if isinstance(key, values.BatchStatistic)}
    assert read <= {values.ParameterValue(name) for name in traced.parameters}
    assert given == {values.BatchStatistic(name) for name in traced.running}
