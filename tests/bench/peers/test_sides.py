"""Every side computes what the operation says, against float64 derivatives of tiny networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev

from newtriton.bench.peers import autograd, ours, with_backpack, with_curvlinops
from newtriton.bench.peers.problem import DAMPING, OPERATIONS, Problem, relative_error
from newtriton.bench.peers.sides import SIDES, clause, offered, versions

from . import tiny

F64 = torch.float64
HERE = ("newtriton", "reverse", "forward", "backpack", "curvlinops", "optim")


class Dense:
    """Derivatives and factors of a problem, written down from their definitions."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.params = {name: p.detach() for name, p in problem.net.named_parameters()}
        self.sizes = [p.numel() for p in self.params.values()]
        self.flat = self.vector(self.params)

    def vector(self, named: dict[str, Tensor]) -> Tensor:
        return torch.cat([named[name].flatten() for name in self.params])

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        parts = zip(self.params.items(), flat.split(self.sizes), strict=True)
        return {name: part.view(p.shape) for (name, p), part in parts}

    def outputs(self, flat: Tensor) -> Tensor:
        return functional_call(self.problem.net, self.named(flat), (self.problem.x,))

    def loss(self, flat: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.outputs(flat), self.problem.y)

    def numbers(self, operation: str) -> dict[str, Tensor]:
        return getattr(self, f"_{operation}")()

    def _step(self) -> dict[str, Tensor]:
        return {"loss": self.loss(self.flat)}

    def _gradient(self) -> dict[str, Tensor]:
        return self.named(jacrev(self.loss)(self.flat))

    def _hvp(self) -> dict[str, Tensor]:
        return self.named(hessian(self.loss)(self.flat) @ self.vector(self.problem.v))

    def _ggnvp(self) -> dict[str, Tensor]:
        jacobian, z = jacrev(self.outputs)(self.flat), self.outputs(self.flat)
        b = hessian(lambda z: nn.functional.cross_entropy(z, self.problem.y))(z)
        z_dot = jacobian @ self.vector(self.problem.v)
        bent = torch.einsum("nkml,ml->nk", b, z_dot)
        return self.named(torch.einsum("nkp,nk->p", jacobian, bent))

    def _forms(self) -> dict[str, Tensor]:
        h = hessian(self.loss)(self.flat)
        u, v = self.vector(self.problem.u), self.vector(self.problem.v)
        return {"uHu": u @ h @ u, "uHv": u @ h @ v, "vHv": v @ h @ v}

    def _form(self) -> dict[str, Tensor]:
        return {"vHv": self._forms()["vHv"]}

    def layers(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each linear layer's inputs with the 1, and its adjoints of each sample's own loss."""
        net, seen = self.problem.copy(), dict[str, tuple[Tensor, Tensor]]()
        for name in self.problem.layers:
            net.get_submodule(name).register_forward_hook(
                lambda m, given, out, name=name: (
                    (
                        out.retain_grad(),
                        seen.update({name: (given[0].detach(), out)}),
                    )[2:]
                    or None
                )
            )
        z = net(self.problem.x)
        nn.functional.cross_entropy(z, self.problem.y, reduction="sum").backward()
        for name, (a, s) in seen.items():
            assert s.grad is not None
            yield name, torch.cat([a, a.new_ones(len(a), 1)], 1), s.grad

    def by_layer(self, operation: str) -> dict[str, Tensor]:
        found, n = dict[str, Tensor](), self.problem.samples
        vector = self.problem.v if operation == "inverse" else self.problem.w
        for name, a, g in self.layers():
            m = torch.cat([vector[f"{name}.weight"], vector[f"{name}.bias"][:, None]], 1)
            product = self.product(operation, a, g, m, n)
            found |= {f"{name}.weight": product[:, :-1], f"{name}.bias": product[:, -1]}
        return found

    def product(self, operation: str, a: Tensor, g: Tensor, m: Tensor, n: int) -> Tensor:
        big_a, big_g = a.mT @ a / n, g.mT @ g / n
        if operation == "kfac":
            return big_g @ m @ big_a
        if operation == "ekfac":
            u_a, u_g = (torch.linalg.eigh(x).eigenvectors for x in (big_a, big_g))
            s = ((g @ u_g).square().mT @ (a @ u_a).square()) / n
            return u_g @ (s * (u_g.mT @ m @ u_a)) @ u_a.mT
        pi = ((big_a.trace() / len(big_a)) / (big_g.trace() / len(big_g))).sqrt()
        root = DAMPING**0.5
        damped_a = big_a + pi * root * torch.eye(len(big_a), dtype=F64)
        damped_g = big_g + root / pi * torch.eye(len(big_g), dtype=F64)
        return torch.linalg.solve(damped_g, m) @ torch.linalg.inv(damped_a)


MATRIX_FREE = ("gradient", "hvp", "ggnvp", "form", "forms", "step")


@pytest.mark.parametrize("name", tiny.NETS)
def test_matrix_free_operations_are_those_of_dense_matrices(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = tiny.problem(monkeypatch, name, F64)
    calls, refused = offered(problem, HERE, MATRIX_FREE)
    expected, dense = {}, Dense(problem)
    compared = set[tuple[str, str]]()
    for call in calls:
        if call.operation not in expected:
            expected[call.operation] = dense.numbers(call.operation)
        try:
            found = call.numbers()
        except NotImplementedError as error:  # PyTorch has no second forward derivative of SiLU
            assert "silu_backward" in str(error)
            continue
        assert relative_error(found, expected[call.operation]) < 1e-10, call
        compared.add((call.provider, call.operation))
    assert not refused
    mine = {(ours.NAME, operation) for operation in MATRIX_FREE[:-1]}
    assert compared >= mine | {(autograd.REVERSE, operation) for operation in MATRIX_FREE[:-1]}


@pytest.mark.parametrize("operation", ["kfac", "ekfac", "inverse"])
def test_factors_are_those_of_their_definition(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = tiny.problem(monkeypatch, "tiny-mlp", F64)
    calls, _ = offered(problem, HERE, [operation])
    expected = Dense(problem).by_layer(operation)
    for call in calls:
        found = call.numbers()
        assert relative_error(found, {name: expected[name] for name in found}) < 1e-9, call
    providers = {call.provider for call in calls}
    assert providers >= {ours.NAME, with_curvlinops.NAME}
    assert (with_backpack.NAME in providers) == (operation == "kfac")


def test_sides_agree_on_the_factors_of_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny.problem(monkeypatch, "tiny-cnn", F64)
    calls, _ = offered(problem, ("newtriton", "curvlinops"), ("kfac", "ekfac", "inverse"))
    mine = {call.operation: call.numbers() for call in calls if call.provider == ours.NAME}
    for call in calls:
        assert relative_error(mine[call.operation], call.numbers()) < 1e-9, call


def test_backpack_says_what_it_does_otherwise_and_refuses_silu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = tiny.problem(monkeypatch, "tiny-cnn", F64)
    (call,) = with_backpack.calls(problem, ["kfac"])
    assert not call.comparable
    assert "summed" in call.differs
    with pytest.raises(NotImplementedError) as raised:
        call.run()
    assert "does not have an extension for Module" in clause(raised.value)
    assert "SiLU" in clause(raised.value)


@pytest.mark.parametrize("name", HERE)
def test_calls_are_of_providers_and_operations_that_the_side_names(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = tiny.problem(monkeypatch, "tiny-mlp", torch.float32)
    peer = SIDES[name]
    calls = [*peer.calls(problem, peer.operations)]
    assert {call.provider for call in calls} <= {*peer.providers}
    assert {call.operation for call in calls} == {*peer.operations} <= {*OPERATIONS}
    for call in calls:
        call.run()


def test_a_side_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIDES, "backpack", SIDES["backpack"])
    monkeypatch.setitem(__import__("sys").modules, "backpack", None)
    problem = tiny.problem(monkeypatch, "tiny-mlp", torch.float32)
    calls, refused = offered(problem, ["backpack"], ["hvp", "ekfac"])
    assert not calls
    ((provider, operation, why),) = refused
    assert (provider, operation) == ("BackPACK", "hvp")
    assert why.startswith("is not installed: ")


def test_a_reason_is_one_line() -> None:
    assert clause(ValueError("no\n  such   layer")) == "ValueError: no"
    assert clause(RuntimeError()) == "RuntimeError"
    assert clause(ModuleNotFoundError("No module named 'x'")).startswith("is not installed: No")


def test_versions_are_those_of_what_is_installed() -> None:
    found = versions(["curvlinops", "newtriton"])
    assert set(found) == {"curvlinops"}
    assert found["curvlinops"][0].isdigit()
