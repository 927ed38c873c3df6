"""Programs are compiled once, and write where they are told."""

from __future__ import annotations

import torch

import newtriton as nt
from newtriton.compiler.values import Gradient


def test_a_program_is_compiled_once_and_writes_where_it_is_told() -> None:
    model = nt.compile(nt.Linear(3), (5,), nt.CrossEntropyLoss(), backend="aten")
    x, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    known, runner = model.programs[True], model.runner
    program = known.linearize
    assert runner.executor(program) is runner.executor(program)
    assert runner.executor(program, known.tape) is not runner.executor(program)
    key = Gradient("weight")
    place = torch.empty(model.layout.parameters["weight"].shape)
    found = runner.run(program, len(x), model.feed(x, y), out={key: place})
    assert torch.equal(place, found[key])


def test_what_was_made_of_other_programs_is_dropped() -> None:
    model = nt.compile(nt.Linear(3), (5,), nt.MSELoss(), backend="aten")
    program = model.programs[True].outputs
    before = model.runner.executor(program)
    model.freeze("bias")
    assert model.runner.executor(program) is not before
