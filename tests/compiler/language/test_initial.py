"""The rules for first values that layers name are among those that there are."""

import newtriton as nt
from newtriton.compiler.language.initial import INITIAL, WEIGHTS, Constant, bias_rule
from newtriton.compiler.language.network import trace


def test_layers_name_rules_that_there_are() -> None:
    for init in WEIGHTS:
        net = nt.Sequential(nt.Conv2d(2, 3, init=init), nt.Flatten(), nt.Linear(2, init=init))
        parameters = trace(net, (1, 4, 4), nt.MSELoss()).parameters.values()
        assert [p.init for p in parameters] == [init, bias_rule(init)] * 2
        assert {p.init for p in parameters} <= set(INITIAL)


def test_biases_start_at_zero_except_for_pytorchs_own() -> None:
    assert bias_rule("default") == "default"
    for init in WEIGHTS[1:]:
        assert INITIAL[bias_rule(init)](3, 4) == Constant(0.0)
