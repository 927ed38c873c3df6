"""Programs of parts: what they read, that none starts from a tape, and what they leave out."""

from __future__ import annotations

import pytest

import newtriton as nt
from newtriton.compiler.curvature.adjoints import Noise
from newtriton.compiler.curvature.factors import GradientsGram, InputsGram, LayerAdjoints, Wanted
from newtriton.compiler.graph.cost import flops
from newtriton.compiler.graph.ir import batch_axis
from newtriton.compiler.language.network import trace
from newtriton.compiler.parts import PartPrograms
from newtriton.compiler.programs import Programs
from newtriton.compiler.values import Counted, Form, Gradient, Losses, Normaliser, Outputs

NET = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(4))
LOSS = nt.CrossEntropyLoss(ignore_index=-100)


@pytest.fixture(scope="module")
def parts() -> PartPrograms:
    return PartPrograms(trace(NET, (3,), LOSS, part=True))


def test_programs_divide_by_a_number_that_is_given(parts: PartPrograms) -> None:
    for program in (parts.linearize, parts.slopes, parts.hvp, parts.ggnvp, parts.quadratic(1)):
        assert Normaliser() in program.inputs, program.name
        assert not program.graph.given
    assert Normaliser() not in parts.evaluate.inputs
    assert set(parts.evaluate.outputs) == {Losses()}
    assert Counted() not in parts.linearize.outputs and Outputs() in parts.linearize.outputs
    assert Outputs() not in parts.slopes.outputs


def test_whole_batches_have_no_such_number() -> None:
    program = Programs(trace(NET, (3,), LOSS)).linearize
    assert Normaliser() not in program.inputs and Counted() in program.outputs


def test_a_later_call_computes_what_it_needs_and_no_more(parts: PartPrograms) -> None:
    again = flops(parts.linearize.graph, 8)
    whole = Programs(trace(NET, (3,), LOSS))
    for name in ("hvp", "ggnvp"):
        alone, on_tape = (flops(getattr(p, name).graph, 8) for p in (parts, whole))
        assert alone < again + on_tape, name


def test_factors_are_made_of_sums_in_one_pass(parts: PartPrograms) -> None:
    wanted = Wanted("kfac", samples=2)
    staged = parts.staged(wanted)
    assert parts.staged(wanted) is staged and len(staged.sums) == 1
    (sums,) = staged.sums
    assert Noise() in sums.inputs
    assert all(batch_axis(node.shape) is None for node in sums.outputs.values())
    assert all(batch_axis(n.shape) is None for n in staged.rest.graph.nodes())
    found = {*staged.rest.outputs, *staged.known}
    assert found == {kind(layer) for kind in (InputsGram, GradientsGram) for layer in ("0", "2")}
    joint = parts.linearize_with(sums)
    assert {*joint.outputs} == {*parts.linearize.outputs, *sums.outputs}
    assert parts.linearize_with(sums) is joint and parts.linearize_with(None) is parts.linearize
    assert Gradient("0.weight") in joint.outputs


def test_samples_are_given_without_factors(parts: PartPrograms) -> None:
    program = parts.samples(Wanted("empirical", per_sample=True))
    assert LayerAdjoints("0") in program.outputs and InputsGram("0") not in program.outputs


def test_spans_have_the_forms_inside_each(parts: PartPrograms) -> None:
    program = parts.spans((1, 2), "hessian", two_products=True)
    assert {*program.outputs} == {Form(0, 0), Form(1, 1), Form(1, 2), Form(2, 2)}


def test_batch_statistics_are_refused_and_running_ones_are_not() -> None:
    net = nt.Sequential(nt.Linear(4), nt.BatchNorm1d(), nt.Linear(3), nt.BatchNorm1d())
    with pytest.raises(nt.NewtritonError, match=r"layer 1 \(and 1 more\) normalises"):
        PartPrograms(trace(net, (3,), LOSS, part=True))
    PartPrograms(trace(net, (3,), LOSS, training=False, part=True))
