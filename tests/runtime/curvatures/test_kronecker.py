"""When Kronecker curvature is gathered, how it is averaged, and its product."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.curvature.factors import DiagonalLayer, KroneckerLayer
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.language.network import Layer
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from newtriton.runtime.model.factors import DiagonalFactors, KroneckerFactors
from newtriton.runtime.parts.state import check_state

from ..stand_in import MLP, StandInLayout, assert_identical, batch, positive, seeded


class Scripted:
    """A linearization whose n-th gathering gives the factors n·I."""

    def __init__(self) -> None:
        self.calls, self.batch = 0, 12

    def kronecker_factors(
        self, kind: str, samples: int, generator: torch.Generator, **_: object
    ) -> dict:
        self.calls += 1
        value = float(self.calls)
        a, g = value * torch.eye(2), value * torch.eye(1)
        return {
            "0": KroneckerFactors(a, g, (1, 1), True),
            "1": DiagonalFactors({"1.scale": torch.full((2,), value)}),
        }


def test_gathers_each_step_of_the_burn_in_then_every_kth():
    lin = Scripted()
    curvature = KroneckerCurvature(MLP(), every=4, burn_in=3)
    gathered = []
    for _ in range(10):
        assert curvature.update(lin)
        gathered.append(lin.calls)
    assert gathered == [1, 2, 3, 3, 4, 4, 4, 4, 5, 5]
    assert curvature.gathered == 5


def test_averages_plainly_then_exponentially():
    lin = Scripted()
    curvature = KroneckerCurvature(MLP(), moving_average=0.9, every=1, burn_in=3)
    seen = []
    for _ in range(5):
        curvature.update(lin)
        factors, diagonal = curvature.factors["0"], curvature.factors["1"]
        seen.append(float(factors.G))
        torch.testing.assert_close(factors.A_stored, seen[-1] * torch.eye(2))
        torch.testing.assert_close(diagonal.diagonal["1.scale"], torch.full((2,), seen[-1]))
    expected = [1.0, 1.5, 2.0, 0.9 * 2 + 0.1 * 4, 0.9 * (0.9 * 2 + 0.1 * 4) + 0.1 * 5]
    assert seen == pytest.approx(expected, rel=1e-6)


def test_without_burn_in_the_first_gathering_is_the_average():
    curvature = KroneckerCurvature(MLP(), moving_average=0.9, burn_in=0)
    lin = Scripted()
    curvature.update(lin)
    assert float(curvature.factors["0"].G) == 1.0
    curvature.update(lin)
    assert float(curvature.factors["0"].G) == pytest.approx(1.1)


def test_averages_are_replaced_so_that_what_they_were_can_come_back():
    curvature = KroneckerCurvature(MLP())
    lin = Scripted()
    curvature.update(lin)
    undo, before = curvature.hold(), curvature.state_dict()
    curvature.update(lin)
    assert curvature.updates == 2
    undo()
    assert_identical(curvature.state_dict(), before)


def test_leaves_out_factors_that_are_not_finite():
    model = MLP()
    curvature = KroneckerCurvature(model)
    lin = model.linearize(*batch())
    assert curvature.update(lin)
    before = curvature.state_dict()
    lin.x = lin.x * torch.inf
    lin.kronecker_factors = lambda *_, **__: model.factors(lin, "empirical", 1, seeded(0))
    assert not curvature.update(lin)
    after = curvature.state_dict()
    assert (after["gathered"], after["updates"]) == (before["gathered"], before["updates"])
    assert_identical(after["factors"], before["factors"])


def dense(model: MLP, curvature: KroneckerCurvature) -> Tensor:
    """The block-diagonal matrix, entry by entry from its definition."""
    n = model.layout.numel
    index = model.layout.views(torch.arange(n))
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for block in model.blocks:
        factors = curvature.factors[block.layer]
        if isinstance(block, KroneckerLayer):
            a, g = factors.A_stored, factors.G
            where = torch.cat([index[block.weight], index[block.bias][:, None]], 1)
            full = torch.einsum("ij,ab->iajb", g, a).reshape(where.numel(), where.numel())
            matrix[where.reshape(-1, 1), where.reshape(1, -1)] = full
        else:
            at = index["1.scale"]
            matrix[at, at] = factors.diagonal["1.scale"]
    return matrix


@pytest.mark.parametrize("kind", ["kfac", "empirical"])
def test_mv_is_the_dense_block_diagonal(kind):
    model = MLP()
    curvature = KroneckerCurvature(model, kind)
    curvature.update(model.linearize(*batch()))
    v = torch.randn(model.layout.numel, generator=seeded(1), dtype=torch.float64)
    kept = v.clone()
    expected = dense(model, curvature) @ v
    torch.testing.assert_close(curvature.mv(v), expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(v, kept)


def test_mv_with_groups_and_a_diagonal_block():
    shapes = {"w": (4, 3, 3, 2), "b": (4,), "s": (2,)}
    model = SimpleNamespace(
        parallel=None,
        layout=StandInLayout(shapes),
        device=torch.device("cpu"),
        weight_decay=0.0,
        blocks=[KroneckerLayer("conv", "w", "b", 2, (3, 3)), DiagonalLayer("bn", ("s",))],
    )
    curvature = KroneckerCurvature(model)
    a = torch.stack([positive(19, 1), positive(19, 2)])
    g = torch.stack([positive(2, 3), positive(2, 4)])
    diagonal = torch.tensor([2.0, 3.0], dtype=torch.float64)
    given = {
        "conv": KroneckerFactors(a, g, (3, 3), True),
        "bn": DiagonalFactors({"s": diagonal}),
    }
    curvature.update(SimpleNamespace(kronecker_factors=lambda *_, **__: given, batch=1))
    v = torch.randn(model.layout.numel, generator=seeded(5), dtype=torch.float64)
    parts, result = model.layout.views(v), model.layout.views(curvature.mv(v))
    torch.testing.assert_close(result["s"], diagonal * parts["s"])
    for k in range(2):
        rows = slice(2 * k, 2 * k + 2)
        m = torch.cat([parts["w"][rows].reshape(2, -1), parts["b"][rows, None]], 1)
        expected = (torch.kron(g[k], a[k]) @ m.reshape(-1)).view(2, 19)
        torch.testing.assert_close(result["w"][rows].reshape(2, -1), expected[:, :-1])
        torch.testing.assert_close(result["b"][rows], expected[:, -1])


def test_the_samples_behind_an_average():
    """1/N = Σ w²/n, the weights being those of the batches in it."""
    model, weights, sizes = MLP(), [], [12, 7, 12, 12, 5, 12]
    curvature = KroneckerCurvature(model, burn_in=3, moving_average=0.9)
    for k, n in enumerate(sizes):
        curvature.update(model.linearize(*batch(k, n)))
        weight = 1.0 / (k + 1) if k < 3 else 0.1
        weights = [w * (1.0 - weight) for w in weights] + [weight]
        expected = sum(w**2 / n for w, n in zip(weights, sizes[: k + 1], strict=True))
        assert curvature.unseen == pytest.approx(expected)
    again = KroneckerCurvature(model)
    again.load_state_dict(curvature.state_dict())
    assert again.unseen == curvature.unseen


def test_state_resumes_bit_for_bit_with_its_generator():
    model, data = MLP(), batch()
    one = KroneckerCurvature(model, burn_in=2, seed=5)
    other = KroneckerCurvature(model, burn_in=2, seed=9)
    for _ in range(3):
        one.update(model.linearize(*data))
    state = one.state_dict()
    other.load_state_dict(state)
    kept = state["factors"]["0"]["A"].clone()
    for curvature in (one, other):
        for _ in range(2):
            curvature.update(model.linearize(*data))
    assert_identical(one.state_dict(), other.state_dict())
    assert torch.equal(state["factors"]["0"]["A"], kept), "a saved state has changed"


def test_seeds_repeat_and_differ():
    def drawn(seed: int) -> Tensor:
        model = MLP()
        curvature = KroneckerCurvature(model, seed=seed)
        torch.rand(seed + 1)  # the global generator plays no part
        curvature.update(model.linearize(*batch()))
        return curvature.factors["2"].G

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "kfca"}, "kfca"),
        ({"moving_average": 1.0}, "moving_average"),
        ({"every": 0}, "every"),
        ({"burn_in": -1}, "burn_in"),
    ],
)
def test_refuses_options(options, named):
    with pytest.raises(NewtritonError, match=named):
        KroneckerCurvature(MLP(), **options)


def compiled(*layers: Layer, shape: tuple[int, ...] = (2, 5, 5)) -> nt.Model:
    return nt.compile(nt.Sequential(*layers), shape, nt.CrossEntropyLoss(), dtype=torch.float64)


def images(seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(6, 2, 5, 5, generator=seeded(seed), dtype=torch.float64)
    return x, torch.arange(6) % 3


def forked() -> nt.Model:
    """Both branches read the same input and end in the same gradient: A and G coincide."""
    fork = nt.Residual(nt.Conv2d(4, 3, padding=1), nt.Conv2d(4, 3, padding=1))
    return compiled(fork, nt.Tanh(), nt.Flatten(), nt.Linear(3))


def test_layers_that_share_statistics_are_averaged_once_each() -> None:
    model = forked()
    curvature = KroneckerCurvature(model, "empirical", moving_average=0.9, burn_in=0)
    lins = [model.linearize(*images(seed)) for seed in range(2)]
    first, second = (lin.kronecker_factors("empirical") for lin in lins)
    for lin in lins:
        curvature.update(lin)
    for layer in ("0.body", "0.shortcut", "3"):
        for name in ("A_stored", "G"):
            expected = 0.9 * getattr(first[layer], name) + 0.1 * getattr(second[layer], name)
            torch.testing.assert_close(getattr(curvature.factors[layer], name), expected)


def test_factors_belong_to_the_caller_and_to_one_layer() -> None:
    factors = forked().linearize(*images(0)).kronecker_factors("empirical")
    kept = factors["0.shortcut"].A.clone()
    factors["0.body"].A_stored.zero_()
    assert torch.equal(factors["0.shortcut"].A, kept)


def test_state_of_layers_that_share_statistics_resumes_bit_for_bit() -> None:
    model = forked()
    one, other = (KroneckerCurvature(model, seed=seed) for seed in (1, 2))
    one.update(model.linearize(*images(0)))
    other.load_state_dict(one.state_dict())
    for curvature in (one, other):
        for seed in range(2):
            curvature.update(model.linearize(*images(seed)))
    assert_identical(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("bias", [True, False])
def test_mv_on_a_compiled_network_is_dense_kron_in_torchs_order(bias: bool) -> None:
    model = compiled(
        *(nt.Conv2d(4, 3, groups=2, bias=bias), nt.BatchNorm2d(), nt.SiLU()),
        *(nt.Conv2d(3, 2, bias=bias), nt.Flatten(), nt.Linear(3, bias=bias)),
    )
    curvature = KroneckerCurvature(model, samples=2)
    curvature.update(model.linearize(*images(0)))
    v = torch.randn(model.layout.numel, generator=seeded(1), dtype=torch.float64)
    source, result = model.unflatten(v), model.unflatten(curvature.mv(v))
    for layer, groups in (("0", 2), ("3", 1), ("5", 1)):
        factors = curvature.factors[layer]
        assert isinstance(factors, KroneckerFactors)
        pairs = zip(factors.A.reshape(groups, *factors.A.shape[-2:]),
                    factors.G.reshape(groups, *factors.G.shape[-2:]), strict=True)  # fmt: skip
        names = [f"{layer}.weight"] + [f"{layer}.bias"] * bias
        m, product = (torch.cat([t[n].flatten(1) if t[n].ndim > 1 else t[n][:, None]
                                 for n in names], 1) for t in (source, result))  # fmt: skip
        rows = m.chunk(groups)
        expected = [torch.kron(g, a) @ r.reshape(-1) for (a, g), r in zip(pairs, rows, strict=True)]
        torch.testing.assert_close(product.reshape(-1), torch.cat(expected), rtol=1e-10, atol=1e-14)
    diagonal = curvature.factors["1"]
    assert isinstance(diagonal, DiagonalFactors)
    for name, d in diagonal.diagonal.items():
        torch.testing.assert_close(result[name], d * source[name], rtol=1e-12, atol=0)
    assert set(diagonal.diagonal) == {"1.weight", "1.bias"}


@pytest.mark.parametrize("inputs", ["gram", "mean"])
def test_layers_that_are_named_alone_have_curvature(inputs: str) -> None:
    model = compiled(nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.SiLU(), nt.Flatten(), nt.Linear(3))
    options = {"kind": "kflr", "inputs": inputs}
    whole = KroneckerCurvature(model, **options)
    part, other = (KroneckerCurvature(model, layers=["4"], **options) for _ in range(2))
    lin = model.linearize(*images(0))
    for curvature in (whole, part):
        curvature.update(lin)
    assert part.factors.keys() == {"4"}
    v = torch.randn(model.layout.numel, generator=seeded(1), dtype=torch.float64)
    expected, product = model.unflatten(whole.mv(v)), model.unflatten(part.mv(v))
    for name, value in product.items():
        zero = torch.zeros_like(value)
        torch.testing.assert_close(value, expected[name] if name.startswith("4.") else zero)
    check_state(part.state_spec(), part.state_dict())
    other.load_state_dict(part.state_dict())
    assert_identical(other.state_dict(), part.state_dict())


@pytest.mark.parametrize(
    ("layers", "message"),
    [(["7"], "layers names '7': give layers, of '0'"), ([], "layers is empty")],
)
def test_names_that_are_of_no_layer_are_refused(layers: list[str], message: str) -> None:
    model = compiled(nt.Conv2d(4, 3), nt.Flatten(), nt.Linear(3))
    with pytest.raises(NewtritonError, match=message):
        KroneckerCurvature(model, layers=layers)


def test_later_gatherings_write_over_the_memory_of_the_second() -> None:
    """The first factors become the averages; a user's own call gets tensors of its own."""
    net = nt.Sequential(nt.Conv2d(3, 3, padding=1), nt.Tanh(), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (2, 4, 4), nt.MSELoss(), device="cpu", backend="aten")
    x, y = torch.randn(5, 2, 4, 4, generator=seeded(0)), torch.zeros(5, 2)
    curvature = KroneckerCurvature(model, "empirical", burn_in=0, moving_average=0.5)
    lins = [model.linearize((i + 1) * x, y) for i in range(4)]
    expected = [lin.kronecker_factors("empirical") for lin in lins]
    assert curvature.update(lins[0]) and curvature.update(lins[1])
    kept = {key: tensor.data_ptr() for key, tensor in (curvature._memory or {}).items()}
    assert len(kept) == 4
    assert curvature.update(lins[2]) and curvature.update(lins[3])
    assert {key: t.data_ptr() for key, t in (curvature._memory or {}).items()} == kept
    for layer, factors in curvature.factors.items():
        for name, average in factors.tensors.items():
            batches = [found[layer].tensors[name] for found in expected]
            mean = batches[0] / 8 + batches[1] / 8 + batches[2] / 4 + batches[3] / 2
            torch.testing.assert_close(average, mean)
            assert average.data_ptr() not in kept.values()
