"""Blocks as operators: their places, their products, and a structure solvers never heard of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from newtriton.compiler.curvature.factors import DiagonalLayer, KroneckerLayer
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.ekfac import EigenbasisBlock
from newtriton.runtime.curvatures.kronecker_block import BiasBlock, KroneckerBlock, MeanBlock
from newtriton.runtime.model.factors import DiagonalFactors, KroneckerFactors, MeanFactors
from newtriton.runtime.parts.block import (
    Block,
    BlockDiagonal,
    Damped,
    DiagonalBlock,
    in_rounds,
)
from newtriton.runtime.parts.protocols import LinearSolver, Status
from newtriton.runtime.parts.state import check_state
from newtriton.runtime.parts.tags import Tag
from newtriton.runtime.solvers.block_cg import BlockCG
from newtriton.runtime.solvers.direct import KFI, Direct, Eigen
from newtriton.runtime.vectors import Vectors

from ..stand_in import StandInLayout, assert_identical, positive, seeded
from ..transfers import counted

SHAPES = {"w": (4, 2, 1, 2), "b": (4,), "s": (2,), "t": (3,), "frozen": (2,)}
LAYOUT = StandInLayout(SHAPES)
LAYER = KroneckerLayer("conv", "w", "b", 2, (2, 1))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def eigenbasis(a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The averages of an `EigenbasisBlock` that is A ⊗ G."""
    (values_a, of_a), (values_g, of_g) = torch.linalg.eigh(a), torch.linalg.eigh(g)
    moments = values_g.unsqueeze(-1) * values_a.unsqueeze(-2)
    return {"A": a, "G": g, "basis_A": of_a, "basis_G": of_g, "S": moments}


def filled() -> list[Block]:
    """One block of each structure."""
    a, g = (torch.stack([positive(n, k) for k in range(2)]) for n in (5, 2))
    made: list[tuple[Block, KroneckerFactors | MeanFactors | DiagonalFactors]] = [
        (KroneckerBlock(LAYER), KroneckerFactors(a, g, (2, 1), True)),
        (MeanBlock(LAYER), MeanFactors(random(2, 4), g, (2, 1), True)),
        (MeanBlock(LAYER, apart=True), MeanFactors(random(2, 4), g, (2, 1), True)),
        (
            DiagonalBlock(DiagonalLayer("bn", ("s", "t"))),
            DiagonalFactors({"s": random(2) ** 2, "t": random(3) ** 2}),
        ),
        (KroneckerBlock(LAYER, apart=True), KroneckerFactors(a, g, (2, 1), True)),
    ]
    for block, factors in made:
        block.average(factors, 1.0)
    turned = EigenbasisBlock(LAYER, refines=False)
    turned.load(eigenbasis(a, g))
    return [*(block for block, _ in made), turned, made[-1][0].operators[1]]


@pytest.mark.parametrize("block", filled(), ids=lambda b: type(b).__name__)
def test_a_block_reads_its_part_and_writes_it_back(block: Block) -> None:
    v = random(LAYOUT.numel)
    result = torch.zeros_like(v)
    block.write(LAYOUT.views(result), block.read(LAYOUT.views(v)))
    for name, part in LAYOUT.views(result).items():
        expected = LAYOUT.views(v)[name] if name in block.names else torch.zeros_like(part)
        assert torch.equal(part, expected), name


def test_a_diagonal_is_what_its_factors_are_now() -> None:
    block, v = filled()[3], random(5)
    first = block.mv(v).clone()
    for tensor in block.factors.tensors.values():
        tensor.mul_(2.0)
    assert torch.equal(block.mv(v), 2.0 * first)
    block.average(DiagonalFactors({"s": random(2) ** 2, "t": random(3) ** 2}), 0.5)
    block.load(saved := {name: tensor.clone() for name, tensor in block.tensors.items()})
    assert all(torch.equal(block.tensors[name], tensor) for name, tensor in saved.items())
    saved["s"].zero_()
    assert block.tensors["s"].all()
    block.load({})
    with pytest.raises(NewtritonError, match="no factors yet"):
        block.mv(v)


@pytest.mark.parametrize("block", filled(), ids=lambda b: type(b).__name__)
def test_rows_and_columns_are_those_of_the_products(block: Block) -> None:
    m = block.read(LAYOUT.views(random(LAYOUT.numel)))
    at = torch.randperm(m.numel(), generator=seeded(3))[:5]
    torch.testing.assert_close(block.submatrix(m, at), Block.submatrix(block, m, at))


@pytest.mark.parametrize("form", Damped)
@pytest.mark.parametrize("block", filled(), ids=lambda b: type(b).__name__)
def test_a_solve_inverts_the_product_and_its_tensors_are_as_specified(
    block: Block, form: Damped
) -> None:
    views, damping = LAYOUT.views(random(LAYOUT.numel)), 0.3
    made = block.factorise(damping, form)
    assert made is not None
    factorisation, retries = made
    assert (factorisation.form, retries) == (form, 0)
    check_state(block.factorisation_spec(form, views, torch.float64), factorisation.tensors)
    of_bias = isinstance(block, BiasBlock)
    check_state(block.spec(views, torch.float64), {} if of_bias else block.tensors)
    if form is Damped.WHOLE or of_bias or not factorisation.tensors:  # what has no pair adds γI
        m = block.read(views)
        x = block.solve(factorisation, damping, m)
        torch.testing.assert_close(block.mv(x) + damping * x, m)


def test_blocks_together_leave_what_is_in_none_at_zero() -> None:
    blocks = filled()[0], filled()[3]
    operator = BlockDiagonal(LAYOUT, blocks, 1, False)  # type: ignore[arg-type]
    v = random(LAYOUT.numel)
    product = LAYOUT.views(operator.mv(v))
    places = torch.arange(LAYOUT.numel).flip(0)
    torch.testing.assert_close(operator.submatrix(places, v) @ v[places], operator.mv(v)[places])
    assert not product["frozen"].any()
    torch.testing.assert_close(product["s"], blocks[1].tensors["s"] * LAYOUT.views(v)["s"])


def test_the_whole_has_the_tags_of_all_blocks_or_of_any() -> None:
    pair, mean, _, diagonal, *_ = filled()

    class Saddle(DiagonalBlock):
        tags = DiagonalBlock.tags - {Tag.SEMIDEFINITE}

    def of(*blocks: Block) -> frozenset[Tag]:
        return BlockDiagonal(LAYOUT, blocks, 1, False).tags  # type: ignore[arg-type]

    assert of(pair, diagonal) == {Tag.BLOCKS, Tag.SEMIDEFINITE}
    assert of(mean, diagonal) == {Tag.BLOCKS, Tag.SEMIDEFINITE, Tag.MEANS}
    assert of(pair, Saddle(DiagonalLayer("bn", ("s",)))) == {Tag.BLOCKS}


# --- one more structure, and not a line in a solver -----------------------------------------------


def curvature(block: Block) -> SimpleNamespace:
    """A curvature of one block on a weight of 3×4."""
    layout = StandInLayout({"w": (3, 4)})
    params = torch.zeros(12, dtype=torch.float64)
    model = SimpleNamespace(layout=layout, vectors=Vectors(), params=params, dtype=torch.float64)
    blocks = BlockDiagonal(layout, (block,), 1, False)  # type: ignore[arg-type]
    return SimpleNamespace(name="given", model=model, blocks=blocks)


@pytest.mark.parametrize("solver", [KFI(), Eigen(), BlockCG(100, 1e-13)], ids=lambda s: s.name)
def test_one_more_structure_goes_with_every_solver(solver: LinearSolver) -> None:
    """With S = λ_G λ_Aᵀ an eigenbasis is A ⊗ G, solved exactly."""
    a, g, v = positive(4, 1), positive(3, 2), random(12)
    layer = KroneckerLayer("layer", "w", None, 1, (1, 1))
    block, exact = EigenbasisBlock(layer, refines=False), KroneckerBlock(layer)
    block.load(eigenbasis(a, g))
    exact.average(KroneckerFactors(a, g, (1, 1), False), 1.0)
    expected = Eigen().solve(curvature(exact), 0.2, v).x  # type: ignore[arg-type]
    solution = solver.solve(curvature(block), 0.2, v)  # type: ignore[arg-type]
    assert solution.status is Status.SOLVED
    torch.testing.assert_close(solution.x, expected, rtol=1e-10, atol=1e-12)
    if isinstance(solver, Direct):
        check_state(solver.state_spec(curvature(block)), solver.state_dict())  # type: ignore[arg-type]


def test_in_a_round_only_the_block_that_fails_gets_more_damping() -> None:
    bad = torch.diag(torch.tensor([1.0, -0.5, 1.0], dtype=torch.float64))

    def block(a: Tensor) -> KroneckerBlock:
        made = KroneckerBlock(KroneckerLayer("layer", "w", None, 1, (1, 1)))
        made.average(KroneckerFactors(a, positive(3, 5), (1, 1), False), 1.0)
        return made

    blocks = [block(positive(3, 1)), block(bad), block(positive(3, 2)), filled()[3]]
    with counted() as transfers:
        together = in_rounds([b.factorising(0.1, Damped.FACTORS) for b in blocks])
    assert sum(transfers.reads.values()) == 2
    alone = [b.factorise(0.1, Damped.FACTORS) for b in blocks]
    for one, other in zip(together, alone, strict=True):
        assert one is not None and other is not None
        assert_identical(one[0].tensors, other[0].tensors)
        assert one[1] == other[1]
    assert [made[1] for made in together if made is not None] == [0, 1, 0, 0]
