"""Solvers on Kronecker blocks against dense solves, and what they do where a factor is bad."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.curvature.factors import DiagonalLayer, KroneckerLayer
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature, operators
from newtriton.runtime.curvatures.kronecker_block import KroneckerBlock, MeanBlock
from newtriton.runtime.curvatures.sides import Full, balance
from newtriton.runtime.model.factors import (
    DiagonalFactors,
    Factors,
    KroneckerFactors,
    MeanFactors,
)
from newtriton.runtime.parts.block import RETRIES, BlockDiagonal
from newtriton.runtime.parts.protocols import Status
from newtriton.runtime.solvers.block_cg import BlockCG
from newtriton.runtime.solvers.direct import KFI, Eigen
from newtriton.runtime.vectors import Vectors

from ..problems import problem
from ..stand_in import StandInLayout, assert_identical, positive, seeded
from ..transfers import counted


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


class Given:
    """A curvature of one layer with given factors, and a diagonal block beside it."""

    name, burning_in, preconditioner = "given", False, None

    def __init__(
        self, layer: KroneckerLayer, shapes: dict[str, tuple[int, ...]], apart: bool
    ) -> None:
        described = [layer, DiagonalLayer("bn", ("s",))]
        self.model = SimpleNamespace(
            vectors=Vectors(), layout=StandInLayout(shapes), blocks=described
        )
        self.described, self.apart, self.gathered = layer, apart, 1
        self.empty()

    def empty(self) -> None:
        """Takes all factors away."""
        self.operators = operators(self.model, [], False)

    def put(self, factors: KroneckerFactors | MeanFactors) -> None:
        """Puts other factors in the layer's place."""
        mean = isinstance(factors, MeanFactors)
        block = (MeanBlock if mean else KroneckerBlock)(self.described, self.apart)
        block.average(factors, 1.0)
        self.operators["layer"] = block

    @property
    def factors(self) -> dict[str, Factors]:
        return {layer: block.factors for layer, block in self.operators.items()}

    @property
    def blocks(self) -> BlockDiagonal:
        blocks = tuple(each for block in self.operators.values() for each in block.operators)
        return BlockDiagonal(self.model.layout, blocks, self.gathered, self.burning_in)


def curvature(
    a: Tensor, g: Tensor, groups: int = 1, bias: bool = False, apart: bool = False
) -> Given:
    """One layer with given factors, and a diagonal block beside it."""
    rows, columns = g.shape[-1] * groups, a.shape[-1] - bias
    shapes = {"w": (rows, columns), "s": (2,)} | ({"b": (rows,)} if bias else {})
    of = Given(KroneckerLayer("layer", "w", "b" if bias else None, groups, (1, 1)), shapes, apart)
    of.put(KroneckerFactors(a, g, (1, 1), bias))
    diagonal = torch.tensor([2.0, 0.0], dtype=a.dtype)
    of.operators["bn"].average(DiagonalFactors({"s": diagonal}), 1.0)
    return of


def vector(of: Given, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(of.model.layout.numel, generator=seeded(7), dtype=torch.float64).to(dtype)


def damped(a: Tensor, g: Tensor, damping: float, pi: bool) -> tuple[Tensor, Tensor]:
    """Both factors with their damping, from the formula."""
    if not pi:
        return a + damping * eye(len(a)), g + damping * eye(len(g))
    ratio = math.sqrt(float(a.trace() / len(a)) / float(g.trace() / len(g)))
    root = math.sqrt(damping)
    return a + ratio * root * eye(len(a)), g + root / ratio * eye(len(g))


@pytest.mark.parametrize("pi", [True, False])
def test_solves_the_dense_system(pi):
    a, g = 9 * positive(5, 1), positive(3, 2)
    of = curvature(a, g, bias=True)
    v = vector(of)
    solution = KFI(pi=pi).solve(of, 0.3, v)
    left, right = damped(a, g, 0.3, pi)
    parts, x = of.model.layout.views(v), of.model.layout.views(solution.x)
    m = torch.cat([parts["w"], parts["b"][:, None]], 1)
    expected = torch.linalg.solve(torch.kron(right, left), m.reshape(-1)).view(3, 5)
    torch.testing.assert_close(x["w"], expected[:, :-1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(x["b"], expected[:, -1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(x["s"], parts["s"] / torch.tensor([2.3, 0.3], dtype=v.dtype))
    assert solution.status is Status.SOLVED


def test_each_group_is_solved_with_its_own_balance():
    a = torch.stack([100 * positive(4, 1), positive(4, 2)])
    g = torch.stack([positive(2, 3), 7 * positive(2, 4)])
    of = curvature(a, g, groups=2)
    v = vector(of)
    x = of.model.layout.views(KFI().solve(of, 0.5, v).x)["w"]
    for k in range(2):
        left, right = damped(a[k], g[k], 0.5, pi=True)
        m = of.model.layout.views(v)["w"][2 * k : 2 * k + 2]
        expected = torch.linalg.solve(torch.kron(right, left), m.reshape(-1)).view(2, 4)
        torch.testing.assert_close(x[2 * k : 2 * k + 2], expected, rtol=1e-10, atol=1e-12)


def test_balance_is_one_where_a_trace_vanishes():
    def of(a: Tensor, g: Tensor) -> Tensor:
        return balance(Full(a, "A"), Full(g, "G"))

    a, g = 4 * eye(3), eye(2)
    assert float(of(a, g)) == 2.0
    assert float(of(0 * a, g)) == float(of(a, 0 * g)) == float(of(0 * a, 0 * g)) == 1
    assert of(torch.stack([a, 0 * a]), torch.stack([g, g])).tolist() == [2.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_factor_of_zeros_gives_no_nan(dtype):
    of = curvature(positive(3).to(dtype), torch.zeros(2, 2, dtype=dtype))
    solution = KFI().solve(of, 0.1, vector(of, dtype))
    assert solution.x.dtype == dtype
    assert torch.isfinite(solution.x).all()


def test_an_indefinite_factor_raises_the_damping():
    a = torch.diag(torch.tensor([1.0, -0.5, 1.5], dtype=torch.float64))  # mean 2/3
    g = 2 / 3 * eye(2)  # so π = 1, and √γ must pass 0.5
    of = curvature(a, g)
    v = vector(of)
    solver = KFI()
    solution = solver.solve(of, 1e-3, v)  # √γ: 0.03, 0.1, 0.32, 1.0
    assert solution.status is Status.DAMPING_RAISED
    assert solution.statistics["retries"] == solver.retries == 3
    x = of.model.layout.views(solution.x)["w"]
    expected = of.model.layout.views(v)["w"] / (2 / 3 + 1) / (a.diagonal() + 1)
    torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-12)


def test_a_singular_factor_without_damping_is_damped_above_rounding():
    of = curvature(torch.ones(3, 3, dtype=torch.float64), eye(2))
    solution = KFI().solve(of, 0.0, torch.zeros(8, dtype=torch.float64))
    assert solution.status is Status.DAMPING_RAISED


def test_a_hopeless_factor_fails_with_a_status():
    of = curvature(-1e9 * eye(3), eye(2))
    solver = KFI()
    solution = solver.solve(of, 1e-3, vector(of))
    assert solution.status is Status.FAILED
    assert solution.statistics["retries"] == RETRIES
    of.put(KroneckerFactors(eye(3), eye(2), (1, 1), False))
    assert solver.solve(of, 1e-3, vector(of)).status is Status.SOLVED


def test_factorises_by_schedule_and_when_the_damping_changes():
    of = curvature(positive(3), positive(2))
    solver, made = KFI(every=2), []
    for gathered in (1, 1, 2, 3, 4, 5):
        of.gathered = gathered
        solver.solve(of, 0.1, vector(of))
        made.append(solver.factorisations)
    assert made == [1, 1, 1, 2, 2, 3]
    solver.solve(of, 0.2, vector(of))
    assert solver.factorisations == 4


def test_state_keeps_the_factorisation_in_use():
    of = curvature(positive(3, 1), positive(2))
    one, other = KFI(every=5), KFI(every=5)
    before = one.solve(of, 0.1, vector(of)).x
    other.load_state_dict(one.state_dict())
    of.put(KroneckerFactors(positive(3, 2), positive(2), (1, 1), False))
    of.gathered = 2
    assert torch.equal(other.solve(of, 0.1, vector(of)).x, before)
    assert other.factorisations == 1


def test_asks_for_factors():
    of = curvature(positive(3), positive(2))
    of.empty()
    with pytest.raises(NewtritonError, match="update"):
        KFI().solve(of, 0.1, vector(of))
    with pytest.raises(NewtritonError, match="every"):
        KFI(every=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("factor", ["a", "g"])
def test_a_factor_not_finite_fails_and_the_next_good_one_is_solved(factor: str, bad: float) -> None:
    a, g = positive(3), positive(2)
    of = curvature(a, g)
    solver = KFI()
    before = solver.solve(of, 0.1, vector(of)).x
    spoilt = {"a": a, "g": g, factor: {"a": a, "g": g}[factor].clone().fill_diagonal_(bad)}
    of.put(KroneckerFactors(spoilt["a"], spoilt["g"], (1, 1), False))
    of.gathered = 2
    solution = solver.solve(of, 0.1, vector(of))
    assert solution.status is Status.FAILED
    assert not solution.x.any()
    of.put(KroneckerFactors(a, g, (1, 1), False))
    assert torch.equal(solver.solve(of, 0.1, vector(of)).x, before)


def test_one_indefinite_group_raises_the_damping() -> None:
    a = torch.stack([eye(3), torch.diag(torch.tensor([1.0, -0.5, 1.0], dtype=torch.float64))])
    of = curvature(a, torch.stack([eye(2), eye(2)]), groups=2)
    solution = KFI(pi=False).solve(of, 0.1, vector(of))
    assert (solution.status, solution.statistics) == (Status.DAMPING_RAISED, {"retries": 1})
    weight = of.model.layout.views(vector(of))["w"]
    expected = torch.cat([weight[:2] / 4, weight[2:] / 2 / (a[1].diagonal() + 1)])
    torch.testing.assert_close(of.model.layout.views(solution.x)["w"], expected)


@pytest.mark.parametrize("pi", [True, False])
def test_solves_a_compiled_network_layer_by_layer_in_torchs_order(pi: bool) -> None:
    net = nt.Sequential(
        *(nt.Conv2d(4, 3, groups=2), nt.BatchNorm2d(), nt.SiLU()),
        *(nt.Conv2d(3, 2, bias=False), nt.Flatten(), nt.Linear(3)),
    )
    model = nt.compile(net, (2, 5, 5), nt.CrossEntropyLoss(), dtype=torch.float64)
    x = torch.randn(6, 2, 5, 5, generator=seeded(0), dtype=torch.float64)
    lin = model.linearize(x, torch.arange(6) % 3)
    of = KroneckerCurvature(model)
    of.update(lin)
    solution = KFI(pi=pi).solve(of, 0.3, lin.gradient)
    assert solution.status is Status.SOLVED
    g, x = model.unflatten(lin.gradient), model.unflatten(solution.x)
    for layer, groups in (("0", 2), ("3", 1), ("5", 1)):
        factors = of.factors[layer]
        assert isinstance(factors, KroneckerFactors)
        names = [n for n in (f"{layer}.weight", f"{layer}.bias") if n in g]
        m, solved = (torch.cat([t[n].reshape(len(t[n]), -1) for n in names], 1) for t in (g, x))
        lefts, rights = (t.reshape(groups, *t.shape[-2:]) for t in (factors.A, factors.G))
        expected = []
        for left, right, rows in zip(lefts, rights, m.chunk(groups), strict=True):
            a, b = damped(left, right, 0.3, pi)
            expected.append(torch.linalg.solve(torch.kron(b, a), rows.reshape(-1)).view_as(rows))
        torch.testing.assert_close(solved, torch.cat(expected), rtol=1e-10, atol=1e-13)
    for name, d in of.factors["1"].tensors.items():
        torch.testing.assert_close(x[name], g[name] / (d + 0.3), rtol=1e-12, atol=0)


def mean_curvature(groups: int = 1) -> Given:
    """One layer that keeps the mean of its inputs, with a bias."""
    lead = (groups,) if groups > 1 else ()
    g = positive(3, 2) if groups == 1 else torch.stack([positive(3, k) for k in range(groups)])
    of = curvature(torch.zeros(*lead, 5, 5), g, groups, bias=True)
    mean = torch.randn(*lead, 4, generator=seeded(1), dtype=torch.float64)
    of.put(MeanFactors(mean, g, (1, 1), True))
    return of


def layer_matrix(of: Given, flat: Tensor, groups: int) -> Tensor:
    """The layer's part of a vector, a matrix per group."""
    parts = of.model.layout.views(flat)
    return torch.cat([parts["w"], parts["b"][:, None]], 1).view(groups, 3, 5)


def outer(factors: MeanFactors) -> Tensor:
    """A by its definition, E[ā]E[ā]ᵀ; one per group."""
    mean = factors.mean.view(-1, 4)
    both = torch.cat([mean, torch.ones(len(mean), 1, dtype=torch.float64)], 1)
    return both[:, :, None] * both[:, None, :]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("solver", [KFI(), Eigen(), BlockCG(200, 1e-13)], ids=lambda s: s.name)
def test_solves_with_the_mean_of_the_inputs(solver: KFI | Eigen | BlockCG, groups: int) -> None:
    """Sherman and Morrison's inverse, the range's eigenvectors, products with the mean."""
    of = mean_curvature(groups)
    factors, v, gamma = of.factors["layer"], vector(of), 0.3
    solver = type(solver)(200, 1e-13) if isinstance(solver, BlockCG) else type(solver)()
    solution = solver.solve(of, gamma, v)
    assert solution.status is Status.SOLVED
    m, x = layer_matrix(of, v, groups), layer_matrix(of, solution.x, groups)
    for k, (a, g) in enumerate(zip(outer(factors), factors.G.view(-1, 3, 3), strict=True)):
        if isinstance(solver, KFI):
            left, right = damped(a, g, gamma, pi=True)
            system = torch.kron(right, left)
        else:
            system = torch.kron(g, a) + gamma * eye(15)
        expected = torch.linalg.solve(system, m[k].reshape(-1)).view(3, 5)
        torch.testing.assert_close(x[k], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("solver", [KFI, Eigen])
def test_a_mean_without_damping_is_damped_above_rounding(solver: type) -> None:
    of = mean_curvature()
    solution = solver().solve(of, 0.0, torch.zeros_like(vector(of)))
    assert solution.status is Status.DAMPING_RAISED


def test_eigen_solves_the_exactly_damped_system_at_any_damping_from_one_factorisation() -> None:
    a, g = 9 * positive(5, 1), positive(3, 2)
    of = curvature(a, g, bias=True)
    v, solver = vector(of), Eigen()
    for gamma in (0.3, 1e-6, 20.0):
        solution = solver.solve(of, gamma, v)
        assert solution.status is Status.SOLVED
        m = layer_matrix(of, v, 1)[0]
        system = torch.kron(g, a) + gamma * eye(15)
        expected = torch.linalg.solve(system, m.reshape(-1)).view(3, 5)
        torch.testing.assert_close(layer_matrix(of, solution.x, 1)[0], expected)
        parts, x = of.model.layout.views(v), of.model.layout.views(solution.x)
        torch.testing.assert_close(x["s"], parts["s"] / torch.tensor([2 + gamma, gamma]).double())
    assert solver.factorisations == 1


def test_eigen_raises_the_damping_of_an_indefinite_block_and_gives_up_on_a_hopeless_one() -> None:
    a = torch.diag(torch.tensor([1.0, -0.5, 1.5], dtype=torch.float64))
    of = curvature(a, eye(2))
    v = vector(of)
    solution = Eigen().solve(of, 0.1, v)
    assert (solution.status, solution.statistics["retries"]) == (Status.DAMPING_RAISED, 1)
    x, m = of.model.layout.views(solution.x)["w"], of.model.layout.views(v)["w"]
    torch.testing.assert_close(x, m / (a.diagonal() + 1.0))
    hopeless = curvature(-1e30 * eye(3), eye(2))
    for factor in (-1e30 * eye(3), math.nan * eye(3)):
        hopeless.put(KroneckerFactors(factor, eye(2), (1, 1), False))
        failed = Eigen().solve(hopeless, 0.1, v)
        assert failed.status is Status.FAILED
        assert not failed.x.any()


def test_a_refined_eigenbasis_starts_exact_and_stays_positive_definite() -> None:
    of, solver = curvature(positive(5, 1), positive(3, 2), bias=True), Eigen(basis="qr")
    v, eye15 = vector(of), eye(15)
    first = Eigen().solve(of, 0.1, v)
    assert torch.equal(solver.solve(of, 0.1, v).x, first.x)
    a, g = positive(5, 3), 2 * positive(3, 4)
    of.put(KroneckerFactors(a, g, (1, 1), True))
    system, errors = torch.kron(g, a) + 0.1 * eye15, []
    expected = torch.linalg.solve(system, layer_matrix(of, v, 1).reshape(-1)).view(3, 5)
    for of.gathered in range(2, 300):
        inverse = solver.prepare(of, 0.1)
        errors.append(float((layer_matrix(of, inverse.solve(v).x, 1)[0] - expected).norm()))
    assert errors[-1] < 1e-9 * errors[0]
    of.put(KroneckerFactors(positive(5, 5), positive(3, 6), (1, 1), True))
    of.gathered += 1
    inverse = solver.prepare(of, 0.1)  # one step, far from the eigenvectors
    units = torch.eye(of.model.layout.numel, dtype=torch.float64)
    matrix = torch.stack([inverse.solve(e).x for e in units])
    torch.testing.assert_close(matrix, matrix.mT)
    assert float(torch.linalg.eigvalsh(matrix)[0]) > 0.0


def test_eigen_reads_once_of_all_blocks_and_once_more_where_it_diagonalises() -> None:
    model, [(x, y)] = problem("cnn")
    curvature, solver = KroneckerCurvature(model, "empirical"), Eigen(every=9)
    lin = model.linearize(x, y)
    curvature.update(lin)
    for reads in (2, 1):
        with counted() as transfers:
            inverse = solver.prepare(curvature, 0.1)
        del transfers.reads["_linalg_eigh"]  # PyTorch's own, one for each shape
        assert sum(transfers.reads.values()) == reads, transfers.reads
        assert inverse.solve(lin.gradient).status is Status.SOLVED
        curvature.update(lin)


def test_a_refined_eigenbasis_resumes_bit_for_bit() -> None:
    of, solver, resumed = curvature(positive(5), positive(3)), Eigen(basis="qr"), Eigen(basis="qr")
    v = vector(of)
    solver.solve(of, 0.1, v)
    resumed.load_state_dict(solver.state_dict())
    of.put(KroneckerFactors(positive(5, 3), positive(3, 4), (1, 1), False))
    of.gathered = 2
    assert torch.equal(solver.solve(of, 0.1, v).x, resumed.solve(of, 0.1, v).x)
    assert_identical(solver.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("tolerance", [1e-1, 1e-4, 1e-10])
def test_block_cg_stays_within_its_tolerance_in_each_layer(tolerance: float) -> None:
    a, g = positive(5, 1), positive(3, 2)
    of = curvature(a, g, bias=True)
    v = vector(of)
    solution = BlockCG(200, tolerance).solve(of, 1e-3, v)
    assert solution.status is Status.SOLVED
    m, x = layer_matrix(of, v, 1)[0], layer_matrix(of, solution.x, 1)[0]
    residual = g @ x @ a + 1e-3 * x - m
    assert float(residual.norm() / m.norm()) <= tolerance * (1 + 1e-9)


def test_block_cg_reports_the_worst_layer() -> None:
    of = curvature(positive(5, 1), positive(3, 2), bias=True)
    solution = BlockCG(1, 1e-8).solve(of, 1e-3, vector(of))
    assert (solution.status, solution.statistics) == (Status.LIMIT, {"cg_iterations": 1})
    of.put(KroneckerFactors(math.nan * eye(5), positive(3), (1, 1), True))
    assert BlockCG().solve(of, 1e-3, vector(of)).status is Status.NOT_FINITE
    of.put(KroneckerFactors(-eye(5), positive(3), (1, 1), True))
    assert BlockCG().solve(of, 1e-3, vector(of)).status is Status.NEGATIVE_CURVATURE


@pytest.mark.parametrize("solver", [Eigen, BlockCG])
def test_others_ask_for_factors_too(solver: type) -> None:
    of = curvature(positive(3), positive(2))
    of.empty()
    with pytest.raises(NewtritonError, match="update"):
        solver().solve(of, 0.1, vector(of))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: KFI(every=2.5), r"every is 2\.5"),  # type: ignore[arg-type]
        (lambda: KFI(pi="yes"), "pi is 'yes'"),  # type: ignore[arg-type]
        (lambda: Eigen(every=0), "every is 0"),
        (lambda: Eigen(basis="svd"), "basis is 'svd': one of 'eigh', 'qr'"),
        (lambda: BlockCG(limit=0), "limit is 0"),
        (lambda: BlockCG(tolerance=None), "tolerance is None"),  # type: ignore[arg-type]
    ],
)
def test_refuses_options(make, named: str) -> None:
    with pytest.raises(NewtritonError, match=named):
        make()


@pytest.mark.parametrize("zero", ["A", "G", "both"])
@pytest.mark.parametrize(
    "make", [KFI, lambda: KFI(pi=False), Eigen, BlockCG], ids=["kfi", "kfi, no π", "eigen", "cg"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_factor_of_zeros_without_damping_takes_no_step(make, zero: str, dtype) -> None:
    a, g = positive(3).to(dtype), positive(2).to(dtype)
    of = curvature(0 * a if zero != "G" else a, 0 * g if zero != "A" else g)
    solution = make().solve(of, 0.0, torch.zeros(8, dtype=dtype))
    assert not solution.status.failed
    assert not solution.x.any()


@pytest.mark.parametrize("solver", ["kfi", "eigen", "cg", "ea-cg"])
def test_dead_layers_do_not_keep_the_others_from_training_without_damping(solver: str) -> None:
    net = nt.Sequential(
        *(nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.ReLU(), nt.Flatten()),
        *(nt.Linear(8), nt.ReLU(), nt.Linear(3)),
    )
    model = nt.compile(net, (1, 5, 5), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    dict(model.named_parameters())["4.bias"].fill_(-100.0)
    x = torch.randn(16, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 1, 2] * 4)
    optimizer = nt.SecondOrder(model, "kfac", solver, "trust-region", damping=0.0)
    losses = [optimizer.step(x, y).loss for _ in range(6)]
    assert losses[-1] < losses[0]
