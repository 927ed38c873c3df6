"""Blocks with a diagonal side, and every solver on blocks of a network of attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.curvature.blocks import KroneckerLayer
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from newtriton.runtime.curvatures.kronecker_block import KroneckerBlock, MeanBlock
from newtriton.runtime.model.factors import KroneckerFactors, MeanFactors
from newtriton.runtime.parts.block import Damped
from newtriton.runtime.parts.state import check_state
from newtriton.runtime.solvers.block_cg import BlockCG, MeanCG
from newtriton.runtime.solvers.direct import KFI, Eigen
from tests.tolerances import assert_close

from ..problems import dense
from ..sequences import WIDTH, WORDS, attentive

F64 = torch.float64
TABLE = KroneckerLayer("table", "w", None, 1, (1, 1), rows=5, transposed=True, looks_up=True)
LARGE = KroneckerLayer("layer", "w", "b", 1, (1, 1))
GROUPED = KroneckerLayer("conv", "w", "b", 2, (1, 1))


def positive(n: int, *lead: int) -> Tensor:
    root = torch.randn(*lead, n, n + 2, dtype=F64)
    return root @ root.mT


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def as_matrix(factor: Tensor, lead: int) -> Tensor:
    return factor.diag_embed() if factor.dim() == 1 + lead else factor


CASES = [
    (TABLE, {"w": (5, 3)}, torch.rand(5, dtype=F64), positive(3)),
    (LARGE, {"w": (3, 4), "b": (3,)}, positive(5), torch.rand(3, dtype=F64)),
    (LARGE, {"w": (3, 4), "b": (3,)}, torch.rand(5, dtype=F64), positive(3)),
    (LARGE, {"w": (3, 4), "b": (3,)}, torch.rand(5, dtype=F64), torch.rand(3, dtype=F64)),
    (GROUPED, {"w": (6, 4), "b": (6,)}, torch.rand(2, 5, dtype=F64), positive(3, 2)),
]


def filled(case: int) -> tuple[KroneckerBlock, KroneckerBlock, dict[str, Tensor]]:
    """A block, the same with its sides as matrices, and a vector's part."""
    described, shapes, a, g = CASES[case]
    lead = int(described.groups > 1)
    pairs = [(a, g), (as_matrix(a, lead), as_matrix(g, lead))]
    blocks = []
    for pair in pairs:
        block = KroneckerBlock(described)
        sides = dict(zip(("A", "G"), pair, strict=True))
        kept = tuple(name for name, side in sides.items() if described.is_diagonal(side.dim()))
        block.average(KroneckerFactors(*pair, (1, 1), described.bias is not None, kept), 1.0)
        blocks.append(block)
    return *blocks, {name: torch.randn(shape, dtype=F64) for name, shape in shapes.items()}


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_diagonal_side_is_that_matrix(case: int, relative: bool) -> None:
    block, whole, views = filled(case)
    block.relative = whole.relative = relative
    m = block.read(views)
    assert_close(block.mv(m), whole.mv(m), "product")
    assert_close(block.mean_diagonal, whole.mean_diagonal, "mean of the diagonal")
    assert_close(block.mean_square(views), whole.mean_square(views), "mean square")
    assert block.operations(views) == whole.operations(views)
    assert KroneckerBlock(block.described, max_factor=0).operations(views) == 0
    for form in Damped:
        made, expected = (b.factorise(0.3, form) for b in (block, whole))
        assert made is not None and expected is not None
        found = block.solve(made[0], 0.3, m)
        assert_close(found, whole.solve(expected[0], 0.3, m), form.value)
        extremes = [b.extremes(f[0], 0.3) for b, f in ((block, made), (whole, expected))]
        assert (extremes[0] is None) == (extremes[1] is None)
        if extremes[0] is not None:
            assert_close(extremes[0], extremes[1], "extremes")
        check_state(
            block.factorisation_spec(form, views, F64), made[0].tensors
        ) if case == 0 else None


def test_a_weight_is_read_and_written_in_any_arrangement() -> None:
    views = (("reshape", (2, 3, 4)), ("transpose", (1, 2, 0)))
    described = KroneckerLayer("l", "w", "b", 1, (1, 1), views=views, rows=3, transposed=True)
    block, w = KroneckerBlock(described), torch.randn(6, 4)
    m = block.read({"w": w, "b": torch.ones(8)})
    expected = w.view(2, 3, 4).permute(1, 2, 0).reshape(3, 8).T
    assert torch.equal(m, torch.cat([expected, torch.ones(8, 1)], 1))
    target = {"w": torch.zeros(6, 4), "b": torch.zeros(8)}
    block.write(target, m)
    assert torch.equal(target["w"], w) and torch.equal(target["b"], torch.ones(8))


def test_a_mean_goes_with_a_diagonal_of_gradients() -> None:
    mean, g = torch.randn(4, dtype=F64), torch.rand(3, dtype=F64)
    views = {"w": torch.randn(3, 4, dtype=F64), "b": torch.randn(3, dtype=F64)}
    blocks = []
    for side in (g, g.diag()):
        block = MeanBlock(LARGE)
        kept = ("G",) if side.dim() == 1 else ()
        block.average(MeanFactors(mean, side, (1, 1), True, kept), 1.0)
        blocks.append(block)
    m = blocks[0].read(views)
    assert_close(blocks[0].mv(m), blocks[1].mv(m))
    for form in (Damped.BALANCED, Damped.WHOLE):
        found, expected = (b.solve(b.factorise(0.2, form)[0], 0.2, m) for b in blocks)  # type: ignore[index]
        assert_close(found, expected, form.value)


# --- a network of attention -----------------------------------------------------------------------


def curvature(kind: str = "kflr", **options: Any) -> tuple[KroneckerCurvature, nt.Linearization]:
    model, x, y = attentive()
    found, lin = KroneckerCurvature(model, kind, **options), model.linearize(x, y)
    assert found.update(lin)
    return found, lin


def test_its_blocks_are_one_for_each_weight_and_one_for_each_layers_spreads() -> None:
    found, _ = curvature()
    assert set(found.factors) == {
        "words", "attend.in", "attend.out", "up", "down", "", "first", "second",
    }  # fmt: skip
    names = [name for block in found.blocks.blocks for name in block.names]
    assert sorted(names) == sorted(found.model.layout.parameters)
    words: Any = found.factors["words"]
    assert (words.A.shape, words.G.shape) == ((WIDTH, WIDTH), (WORDS, WORDS))


@pytest.mark.parametrize("max_factor", [8192, 7, 1])
@pytest.mark.parametrize("kind", ["kfac", "kflr", "ekfac-kflr"])
@pytest.mark.parametrize("solver", [Eigen, KFI, lambda: BlockCG(1000, 1e-13)])
def test_every_solver_inverts_its_damped_product(kind: str, max_factor: int, solver: Any) -> None:
    found, lin = curvature(kind, max_factor=max_factor)
    v = torch.randn(lin.model.layout.numel, dtype=F64)
    solution = solver().solve(found, 0.1, v)
    assert not solution.status.failed
    if solver is KFI:  # which damps the factors
        return
    residual = found.mv(solution.x) + 0.1 * solution.x - v
    assert float(residual.norm() / v.norm()) < 1e-11


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_large_sides_are_the_diagonals_of_matrices(sharing: str) -> None:
    whole, cut = (curvature(sharing=sharing, max_factor=limit)[0].factors for limit in (8192, 7))
    for layer, factors in cut.items():
        for name, side in factors.tensors.items():
            expected = whole[layer].tensors[name]
            if side.dim() < expected.dim():
                assert expected.shape[-1] > 7
                expected = expected.diagonal()
            assert_close(side, expected, f"{name} of {layer}")


def test_the_means_of_inputs_stand_for_a_where_inputs_have_one() -> None:
    found, lin = curvature("kfac", inputs="mean", apart=True)
    assert {layer for layer, f in found.factors.items() if isinstance(f, MeanFactors)} == {
        "attend.in", "attend.out", "up", "down",
    }  # fmt: skip
    solution = MeanCG(1000, 1e-13).solve(found, 0.1, lin.gradient)
    residual = found.mv(solution.x) + 0.1 * solution.x - lin.gradient
    assert float(residual.norm() / lin.gradient.norm()) < 1e-11


@pytest.mark.parametrize("max_factor", [8192, 7])
@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_a_state_restores_it_bit_for_bit(kind: str, max_factor: int) -> None:
    found, lin = curvature(kind, max_factor=max_factor, relative=True)
    state = found.state_dict()
    check_state(found.state_spec(), state)
    other = KroneckerCurvature(lin.model, kind, max_factor=max_factor, relative=True)
    other.load_state_dict(state)
    v = torch.randn(lin.model.layout.numel, dtype=F64)
    for solver in (Eigen(), KFI()):
        assert torch.equal(solver.solve(found, 0.1, v).x, type(solver)().solve(other, 0.1, v).x)
    for solver in (Eigen(), KFI()):
        solver.prepare(found, 0.1)
        check_state(solver.state_spec(found), solver.state_dict())


def test_moments_of_samples_are_the_diagonal_of_the_curvature_in_the_basis() -> None:
    """Of one weight matrix, whose exact block is that of the Gauss–Newton matrix."""
    found, lin = curvature("ekfac-kflr")
    (block,) = [b for b in found.blocks.blocks if b.layer == "up"]
    views: Mapping[str, Tensor]
    s, u_a, u_g = (block.tensors[name] for name in ("S", "basis_A", "basis_G"))
    for at in [(9, 3), (10, 5), (11, 6)]:
        unit = torch.zeros_like(s)
        unit[at] = 1.0
        v = torch.zeros(lin.model.layout.numel, dtype=F64)
        views = lin.model.layout.views(v)
        block.write(views, u_g @ unit @ u_a.mT)
        assert_close(s[at], v @ lin.data_product(v, "ggn"))


@pytest.mark.parametrize("make", [nt.FITRE, nt.KFAC, nt.EACG])
def test_methods_train_it(make: Any) -> None:
    model, x, y = attentive()
    options = {"factors": "kfac"} if make is nt.EACG else {}
    optimizer = make(model, max_factor=8, **options)
    losses = [optimizer.step(x, y).loss for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["kfra", "pch-1", "pch-2"])
def test_what_is_no_chain_is_refused_with_the_alternatives(kind: str) -> None:
    model, _, _ = attentive()
    with pytest.raises(nt.MissingRule, match=f"{kind} goes along chains.*'kfac', 'empirical'"):
        KroneckerCurvature(model, kind)


def test_too_many_copies_are_refused_with_their_number() -> None:
    model, _, _ = attentive()
    message = f"each output of a sample, {WORDS} of them, and max_copies is 8: use 'kfac'"
    with pytest.raises(NewtritonError, match=message):
        KroneckerCurvature(model, "kflr", max_copies=8)


def test_its_curvature_is_close_to_the_exact_one() -> None:
    """Of the diagonal part nothing is approximated."""
    found, lin = curvature()
    size = lin.model.layout.numel
    ours = dense(found.mv, size)
    exact = dense(lambda v: lin.data_product(v, "ggn"), size)
    for block in found.blocks.blocks:
        at = lin.model.layout.places(list(block.names))
        if not isinstance(block, KroneckerBlock):
            assert_close(ours[at, at], exact[at, at], block.layer)


@pytest.mark.interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements, in NumPy
def test_fused_kernels_give_the_same() -> None:
    found = []
    for backend in ("aten", "triton"):
        model, x, y = attentive(3, dtype=torch.float32, backend=backend)
        options = {"sharing": "reduce", "max_factor": 7}
        drawn = "kfac", 1, torch.Generator().manual_seed(0)
        found.append(model.linearize(x, y).kronecker_factors(*drawn, **options))
    for layer, factors in found[0].items():
        for name, side in factors.tensors.items():
            assert_close(found[1][layer].tensors[name], side, f"{name} of {layer}")
