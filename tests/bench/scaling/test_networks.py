"""What a cost model counts of a network is what the compiled model has."""

from __future__ import annotations

import math

import pytest

import newtriton as nt
from newtriton.bench.scaling import networks
from newtriton.compiler.graph.cost import flops
from newtriton.compiler.language.network import trace


def small() -> nt.Sequential:
    return nt.Sequential(
        nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.ReLU(), nt.Conv2d(8, 3, groups=2), nt.Flatten(),
        nt.Linear(5),
    )  # fmt: skip


SHAPE = (2, 8, 8)


def test_blocks_are_those_of_the_curvature() -> None:
    model = nt.compile(small(), SHAPE, nt.CrossEntropyLoss(), device="cpu")
    found = networks.described(small(), SHAPE)
    sketched, views = nt.KroneckerCurvature(model).sketch.blocks, model.layout.views(model.params)
    assert found.parameters == model.params.numel() == sum(b.parameters for b in found.blocks)
    assert [b.factorising for b in found.blocks] == [b.operations(views) for b in sketched]
    assert sum(b.kept for b in found.blocks) == sum(
        t.numel() for b in sketched for t in b.tensors.values() if t.dim() > 1
    )


def test_triangles_diagonals_and_products_are_counted_by_hand() -> None:
    convolution, grouped, linear, norm = networks.described(small(), SHAPE).blocks
    assert (convolution.matrices, convolution.parameters) == ((19, 4), 76)
    assert convolution.numbers == 19 * 20 // 2 + 4 * 5 // 2
    assert convolution.solving == 2 * 4 * 19 * (19 + 4)
    assert grouped.matrices == (19, 19, 4, 4) and grouped.solving == 2 * 2 * 4 * 19 * (19 + 4)
    assert linear.matrices == (129, 5)
    assert (norm.matrices, norm.numbers, norm.factorising) == ((), 8, 0)


def test_operations_of_a_sample_are_those_of_the_programs() -> None:
    model = nt.compile(small(), SHAPE, nt.CrossEntropyLoss(), device="cpu")
    found = networks.described(small(), SHAPE, batch_norm="rank")
    programs = model.programs[True]
    for name, program in {
        "linearize": programs.linearize, "quadratic": programs.quadratic(1),
        "factors": programs.factors("kfac"),
    }.items():  # fmt: skip
        more = flops(program.graph, 64) - flops(program.graph, 32)
        assert found.flops[name] == pytest.approx(more / 32, rel=1e-3)


def test_batch_norm_sums_over_ranks_where_it_is_of_the_whole_batch() -> None:
    whole, own = (networks.described(small(), SHAPE, batch_norm=b) for b in ("whole", "rank"))
    # Mean and variance of four channels: forward, backward, their tangents, again at a new point.
    assert whole.sums == {
        "linearize": (4, 16), "quadratic": (2, 8), "evaluate": (2, 8), "factors": (2, 8),
    }  # fmt: skip
    assert set(own.sums.values()) == {(0, 0)}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("VGG19", 45_113_384), ("ResNet-50", 25_557_032), ("transformer", 1_011_486_720)],
)
def test_the_networks_of_the_tables(name: str, parameters: int) -> None:
    """ResNet-50 has as many parameters as torchvision's."""
    task = networks.TASKS[name]
    traced = trace(task.make(), task.shape, nt.CrossEntropyLoss())
    assert sum(math.prod(node.shape) for node in traced.nodes.values()) == parameters
