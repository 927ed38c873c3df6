"""Keys of a network's values: which names graphs print for them."""

from __future__ import annotations

import pytest

import newtriton as nt
from newtriton.compiler.graph.program import Key
from newtriton.compiler.language.network import trace
from newtriton.compiler.programs import Programs
from newtriton.compiler.values import (
    BatchStatistic,
    Columns,
    Data,
    Ggnvp,
    Labels,
    Outputs,
    ParameterValue,
    RunningValue,
    Scores,
)

NAMES = {
    Data(): "x",
    Labels(): "y",
    Columns(): "columns",
    Outputs(): "outputs",
    Scores(): "scores",
    ParameterValue("0.weight"): "param:0.weight",
    RunningValue("1.running_mean"): "running:1.running_mean",
    BatchStatistic("1.running_var"): "statistics:1.running_var",
    Ggnvp("0.weight"): "ggnvp:0.weight",
}


@pytest.mark.parametrize("key", NAMES, ids=str)
def test_the_text_of_a_key_is_the_name_that_graphs_print(key: Key) -> None:
    assert str(key) == NAMES[key]


def test_a_linearization_reads_and_gives_one_value_for_each_parameter_and_statistic() -> None:
    net = nt.Sequential(nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
    traced = trace(net, (3, 2, 2), nt.MSELoss())
    program = Programs(traced).linearize
    assert {key for key in program.inputs if isinstance(key, ParameterValue)} <= {
        ParameterValue(name) for name in traced.parameters
    }
    assert {key for key in program.outputs if isinstance(key, BatchStatistic)} == {
        BatchStatistic(name) for name in traced.running
    }
