"""What is checked is what steps run: the linearization with its tape, then the others from it."""

from newtriton.compiler.graph.verify import verify
from newtriton.runtime.checking.networks import network_programs, vector_programs

from .small import small


def test_programs_of_a_network_start_from_the_tape():
    programs = small().programs[True]
    first, *others = map(verify, network_programs(programs, two_products=True))
    assert first.name == "linearize" and set(programs.tape) <= set(first.outputs.values())
    assert [g.name for g in others[1:]] == ["hvp", "ggnvp", "factors(kfac, 1)"]
    given = set().union(*(g.given for g in others))
    assert given <= set(first.nodes())


def test_programs_of_vectors_are_all_of_them():
    names = [verify(g).name for g in vector_programs()]
    assert len(names) == 6
