"""Blocks that are Kronecker products."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import newtriton as nt
from newtriton.compiler.curvature.factors import KroneckerLayer
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from newtriton.runtime.curvatures.kronecker_block import KroneckerBlock, MeanBlock
from newtriton.runtime.model.factors import KroneckerFactors, MeanFactors
from newtriton.runtime.parts.block import Damped
from newtriton.runtime.parts.protocols import LinearSolver, Status
from newtriton.runtime.parts.state import check_state
from newtriton.runtime.solvers.block_cg import BlockCG
from newtriton.runtime.solvers.direct import KFI, Eigen
from tests.tolerances import assert_close

from ..problems import problem
from ..stand_in import assert_identical, positive, seeded

F64 = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("form", Damped)
def test_a_factorisation_does_not_follow_the_averages(form: Damped) -> None:
    """A mean without a bias is its own root: what is kept of it must be a copy."""
    g = positive(3)
    block = MeanBlock(KroneckerLayer("layer", "w", None, 1, (1, 1)))
    block.average(MeanFactors(random(4), g, (1, 1), False), 1.0)
    made, m = block.factorise(0.3, form), random(3, 4, seed=1)
    assert made is not None
    before = block.solve(made[0], 0.3, m)
    block.average(MeanFactors(random(4, seed=2), g, (1, 1), False), 0.5)
    assert torch.equal(block.solve(made[0], 0.3, m), before)


def test_a_product_with_a_mean_takes_o_squared_and_twice_o_times_d() -> None:
    """Chen, Chou & Chang 2018, on eq. 11b: no product of an O×O and an O×D matrix."""
    outputs, inputs = 30, 50
    block = MeanBlock(KroneckerLayer("layer", "w", "b", 1, (1, 1)))
    block.average(MeanFactors(random(inputs), positive(outputs), (1, 1), True), 1.0)
    m = random(outputs, inputs + 1)
    with FlopCounterMode(display=False) as counter:
        product = block.mv(m)
    assert counter.get_total_flops() == 2 * (outputs**2 + 2 * outputs * (inputs + 1))
    root = block.factors.root
    assert_close(product, block.factors.G @ m @ root @ root.mT)


# --- a bias that stands apart (Chen, Chou & Chang 2018, eqs. 8 and 10) ----------------------------


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=F64)


def separate(inputs: str) -> tuple[nt.Model, nt.Linearization, dict[str, tuple[Tensor, Tensor]]]:
    """A network, and by parameter the factors A and G of its block by PyTorch's autograd."""
    model, [(x, y)] = problem("mlp", weight_decay=0.0)
    twin = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    twin.load_state_dict(model.state_dict())
    hidden = twin[1](first := twin[0](x))
    losses = nn.functional.cross_entropy(outputs := twin[2](hidden), y, reduction="sum")
    gradients = torch.autograd.grad(losses, (first, outputs))
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for layer, a, g in zip(("0", "2"), (x, hidden.detach()), gradients, strict=True):
        mean, second = a.mean(0), g.T @ g / len(x)
        moment = a.T @ a / len(x) if inputs == "gram" else torch.outer(mean, mean)
        found |= {f"{layer}.weight": (moment, second), f"{layer}.bias": (eye(1), second)}
    return model, model.linearize(x, y), found


def given(inputs: str) -> tuple[KroneckerCurvature, nt.Linearization, dict]:
    model, lin, expected = separate(inputs)
    found = KroneckerCurvature(model, "empirical", inputs=inputs, apart=True)
    assert found.update(lin)
    return found, lin, expected


@pytest.mark.parametrize("inputs", ["gram", "mean"])
def test_weight_and_bias_apart_are_two_blocks(inputs: str) -> None:
    found, lin, expected = given(inputs)
    v = random(lin.model.layout.numel)
    product, parts = lin.model.unflatten(found.mv(v)), lin.model.unflatten(v)
    for name, (a, g) in expected.items():
        m = parts[name].reshape(len(g), -1)
        assert_close(product[name].reshape(len(g), -1), g @ m @ a, name)
    assert found.factors["0"].tensors.keys() == {"A" if inputs == "gram" else "mean", "G"}


def damped(name: str, a: Tensor, g: Tensor, gamma: float, solver: LinearSolver) -> Tensor:
    """The damped block; only weights have two factors that a damping can join."""
    if not isinstance(solver, KFI) or name.endswith("bias"):
        return torch.kron(g, a) + gamma * eye(len(g) * len(a))
    pi = math.sqrt(float(a.trace() / len(a)) / float(g.trace() / len(g))) if solver.pi else 1.0
    of_a, of_g = (pi * gamma**0.5, gamma**0.5 / pi) if solver.pi else (gamma, gamma)
    return torch.kron(g + of_g * eye(len(g)), a + of_a * eye(len(a)))


@pytest.mark.parametrize("inputs", ["gram", "mean"])
@pytest.mark.parametrize(
    "make", [KFI, lambda: KFI(pi=False), Eigen, lambda: BlockCG(200, 1e-13)],
    ids=["kfi", "kfi, no π", "eigen", "cg"],
)  # fmt: skip
def test_solvers_solve_the_two_systems(make: Callable[[], LinearSolver], inputs: str) -> None:
    found, lin, expected = given(inputs)
    solution = (solver := make()).solve(found, 0.3, lin.gradient)
    assert solution.status is Status.SOLVED
    x, gradient = lin.model.unflatten(solution.x), lin.model.unflatten(lin.gradient)
    for name, (a, g) in expected.items():
        matrix = damped(name, a, g, 0.3, solver)
        expected_x = torch.linalg.solve(matrix, gradient[name].reshape(-1))
        assert_close(x[name].reshape(-1), expected_x, name)
    check_state(solver.state_spec(found), solver.state_dict())


def iterated(matrix: Tensor, b: Tensor, limit: int) -> Tensor:
    """Conjugate gradients from 0, in their textbook form."""
    x, r = torch.zeros_like(b), b.clone()
    p = r.clone()
    for _ in range(limit):
        q = matrix @ p
        step = (r @ r) / (p @ q)
        x, last, r = x + step * p, r, r - step * q
        p = r + (r @ r) / (last @ last) * p
    return x


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("inputs", ["gram", "mean"])
def test_each_system_has_its_own_iterations(inputs: str, limit: int) -> None:
    """Eqs. 10a and 10b at a limit, which one system for both would reach elsewhere."""
    found, lin, expected = given(inputs)
    solution = BlockCG(limit, 0.0).solve(found, 0.05, lin.gradient)
    assert solution.statistics == {"cg_iterations": 4 * limit}
    x, gradient = lin.model.unflatten(solution.x), lin.model.unflatten(lin.gradient)
    for name, (a, g) in expected.items():
        matrix = torch.kron(g, a) + 0.05 * eye(len(g) * len(a))
        expected_x = iterated(matrix, gradient[name].reshape(-1), limit)
        assert_close(x[name].reshape(-1), expected_x, name)


@pytest.mark.parametrize("max_factor", [8192, 18, 3])
def test_groups_and_large_factors_keep_their_blocks_apart(max_factor: int) -> None:
    """A of the first layer has 18 rows beside the 1: where that is too many, it is a diagonal."""
    net = nt.Sequential(nt.Conv2d(4, 3, groups=2), nt.Tanh(), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (4, 4, 4), nt.CrossEntropyLoss(), dtype=F64)
    lin = model.linearize(random(6, 4, 4, 4), torch.arange(6) % 3)
    found = KroneckerCurvature(model, "empirical", apart=True, max_factor=max_factor)
    assert found.update(lin)
    v = random(model.layout.numel)
    product, parts = model.unflatten(found.mv(v)), model.unflatten(v)
    for layer, joint in lin.kronecker_factors("empirical", max_factor=max_factor).items():
        assert isinstance(joint, KroneckerFactors)
        groups = 2 if layer == "0" else 1
        kept = (side.reshape(groups, *side.shape[side.dim() > 1 and groups > 1 :]) for side in
                (joint.A, joint.G))  # fmt: skip
        sides = [
            torch.diag_embed(side) if name in joint.diagonal else side
            for name, side in zip(("A", "G"), kept, strict=True)
        ]
        for name, columns in ((f"{layer}.weight", slice(-1)), (f"{layer}.bias", slice(-1, None))):
            m = parts[name].reshape(groups, sides[1].shape[-1], -1)
            a = sides[0][:, columns, columns] if name.endswith("weight") else eye(1)
            assert_close(product[name].reshape(m.shape), sides[1] @ m @ a, name)
    for solver in (KFI(), Eigen()):
        solution = solver.solve(found, 0.1, lin.gradient)
        check_state(solver.state_spec(found), solver.state_dict())
        assert solution.status is Status.SOLVED
    residual = found.mv(solution.x) + 0.1 * solution.x - lin.gradient
    assert float(residual.norm() / lin.gradient.norm()) < 1e-12


@pytest.mark.parametrize("inputs", ["gram", "mean"])
def test_blocks_apart_are_averaged_once_and_resume_bit_for_bit(inputs: str) -> None:
    options = {"inputs": inputs, "apart": True, "moving_average": 0.5, "burn_in": 0}
    model, lin, expected = separate(inputs)
    found = KroneckerCurvature(model, "empirical", **options)
    assert found.update(lin)
    model.params.mul_(0.5)
    _, [(x, y)] = problem("mlp")
    again = model.linearize(x, y)
    assert found.update(again)
    second = again.kronecker_factors("empirical")["2"]
    assert isinstance(second, KroneckerFactors)
    g = (expected["2.bias"][1] + second.G) / 2
    v = random(model.layout.numel)
    assert_close(model.unflatten(found.mv(v))["2.bias"], g @ model.unflatten(v)["2.bias"])
    other = KroneckerCurvature(model, "empirical", **options)
    check_state(found.state_spec(), found.state_dict())
    other.load_state_dict(found.state_dict())
    assert_identical(found.state_dict(), other.state_dict())
    for solver in (KFI, Eigen):
        assert torch.equal(solver().solve(found, 0.1, v).x, solver().solve(other, 0.1, v).x)


def test_a_relative_damping_has_one_unit_for_weight_and_bias() -> None:
    model, lin, _ = separate("gram")
    found = KroneckerCurvature(model, "empirical", apart=True, relative=True)
    assert found.update(lin)
    weight, bias, *_ = found.blocks.blocks
    assert weight.share(0.3) == bias.share(0.3) != 0.3


def test_an_eigenbasis_has_no_bias_apart() -> None:
    model, _, _ = separate("gram")
    with pytest.raises(NewtritonError, match="apart is True: 'ekfac' keeps"):
        KroneckerCurvature(model, "ekfac", apart=True)


def test_a_zero_factor_of_a_bias_is_damped_above_rounding() -> None:
    block = KroneckerBlock(KroneckerLayer("layer", "w", "b", 1, (1, 1)), apart=True)
    block.average(KroneckerFactors(positive(5), torch.zeros(3, 3, dtype=F64), (1, 1), True), 1.0)
    of_bias = block.operators[1]
    made = of_bias.factorise(0.0, Damped.BALANCED)
    assert made is not None and made[1] == 1
    assert float(made[0].tensors["G_inverse"].amax()) == pytest.approx(2.0**52)
