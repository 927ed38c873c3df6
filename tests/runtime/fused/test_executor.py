"""Fused programs in the interpreter against PyTorch's operators: every program, odd sizes."""

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Op, made_at
from newtriton.compiler.graph.memory import arena
from newtriton.runtime.backend import Context
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings

from ...eager import double_backward
from ...networks import logistic, pairs
from ...sequences import gpt, vit
from ...tolerances import LIMITS, assert_close, relative_error

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # masked elements, in NumPy
    pytest.mark.usefixtures("poisoned"),
]
LOSSES = {
    "ce": nt.CrossEntropyLoss,
    "mse": nt.MSELoss,
    "bce": nt.BCEWithLogitsLoss,
    "margin": lambda: nt.SigmoidMarginLoss(root="clip"),
    "mixture": lambda: nt.MixtureLoss("fisher"),
    "logistic": lambda: logistic,
}


def answers(
    model: nt.Model, x: Tensor, y: Tensor, second_order: bool = True, factors: bool = True
) -> dict[str, Tensor]:
    """All programs of a model on one batch, by name."""
    generator = torch.Generator().manual_seed(3)
    v, w = torch.randn(2, model.params.numel(), generator=generator).to(model.params.dtype)
    lin = model.linearize(x, y)
    found = {"outputs": lin.outputs, "loss": lin.loss, "gradient": lin.gradient}
    found |= {"evaluated": model(x), "objective": model.loss(x, y)}
    if not second_order:
        return found
    found |= {"hvp": lin.hvp(v), "ggnvp": lin.ggnvp(v), "again": lin.hvp(w)}
    found |= {"forms": lin.quadratic_forms([v, w]), "ggn": lin.quadratic_forms([v], "ggn")}
    for kind in lin.programs.kinds if factors else ():
        factors = lin.kronecker_factors(kind, 2, generator.manual_seed(4))
        for layer, pair in factors.items():
            found |= {f"{kind} {layer} {name}": t for name, t in pair.tensors.items()}
    return found


def batch(shape: tuple[int, ...], outputs: int, loss: str, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, *shape, generator=generator)
    if loss in ("ce", "margin", "mixture"):
        classes = 2 if loss == "mixture" else outputs
        return x, torch.randint(0, classes, (n,), generator=generator)
    if loss == "logistic":
        return x, 2.0 * torch.randint(0, 2, (n, outputs), generator=generator) - 1.0
    return x, torch.rand(n, outputs, generator=generator)


def both(net, shape, outputs: int, loss: str, n: int, **options) -> None:
    """Compares the backends on all programs."""
    models = [
        nt.compile(net, shape, LOSSES[loss](), backend=backend, device="cpu", seed=1, **o)
        for backend, o in (("aten", {}), ("triton", options))
    ]
    x, y = batch(shape, outputs, loss, n)
    expected, found = (answers(m, x, y) for m in models)
    for name, value in expected.items():
        assert_close(found[name], value, name)


@pytest.mark.interpreter
@seed(5)
@settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(pairs())
def test_random_networks(pair):
    loss = ["ce", "mse", "bce"][len(pair.theirs) % 3]
    both(pair.ours, pair.shape, pair.outputs, loss, 3)


@pytest.mark.interpreter
@pytest.mark.parametrize("size", [1, 3, 7, 17, 33, 65])
def test_programs_of_odd_sizes_equal_pytorchs(size: int):
    net = nt.Sequential(
        nt.Conv2d(size, 3, padding=1), nt.SiLU(), nt.MaxPool2d(2), nt.Flatten(), nt.Linear(size + 1)
    )
    both(net, (3, 5, 4), size + 1, "ce", 3)


@pytest.mark.interpreter
@pytest.mark.parametrize("n", [1, 3, 7, 17, 33, 65])
def test_programs_at_any_batch_size_equal_pytorchs(n: int):
    net = nt.Sequential(nt.Linear(9), nt.Tanh(), nt.Linear(5), nt.Softplus(), nt.Linear(4))
    both(net, (6,), 4, "mse" if n % 2 else "ce", n)


@pytest.mark.interpreter
@pytest.mark.parametrize("loss", ["margin", "mixture", "logistic"])
def test_losses_with_a_root_of_b(loss: str):
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3))
    both(net, (4,), 3, loss, 7)


@pytest.mark.interpreter
def test_batch_norm_and_residuals():
    body = nt.Sequential(nt.Conv2d(6, 3, padding=1), nt.BatchNorm2d(), nt.GELU())
    net = nt.Sequential(
        nt.Conv2d(6, 3, padding=1), nt.BatchNorm2d(), nt.SiLU(), nt.Residual(body),
        nt.AvgPool2d(3, 2, 1), nt.Flatten(), nt.Linear(3),
    )  # fmt: skip
    both(net, (2, 6, 6), 3, "ce", 5)


TOKENS = {"vit": (vit(), nt.InputSpec((3, 4, 4))), "gpt": (gpt(), nt.InputSpec((5,), "int"))}


def of_tokens(name: str, **options) -> tuple[nt.Model, Tensor, Tensor]:
    """A network of tokens, three samples of what it takes, and their labels."""
    net, inputs = TOKENS[name]
    model = nt.compile(net, inputs, nt.CrossEntropyLoss(), device="cpu", seed=1, **options)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *inputs.shape, generator=generator)
    if inputs.kind == "int":
        x = (2 * x.abs()).long()
        return model, x, x.roll(-1, 1)
    return model, x.to(model.params.dtype), torch.randint(0, 5, (3,), generator=generator)


@pytest.mark.interpreter
@pytest.mark.parametrize(("name", "precision"), [("vit", "ieee"), ("vit", "tf32"), ("gpt", "ieee")])
def test_attention_and_tied_words(name: str, precision: str):
    exact, *of_exact = of_tokens(name, backend="aten", dtype=torch.float64)
    fused, *of_fused = of_tokens(name, backend="triton", precision=precision)
    exact.load_state_dict({key: p.double() for key, p in fused.state_dict().items()})
    expected = answers(exact, *of_exact, factors=False)
    for key, value in answers(fused, *of_fused, factors=False).items():
        assert relative_error(value.double(), expected[key]) < LIMITS[precision], key


@pytest.mark.interpreter
@pytest.mark.parametrize(("name", "kind"), [("vit", "kflr"), ("gpt", "kfac")])
def test_factors_of_tokens(name: str, kind: str):
    found = []
    for backend in ("aten", "triton"):
        model, x, y = of_tokens(name, backend=backend)
        drawn = torch.Generator().manual_seed(2)
        factors = model.linearize(x, y).kronecker_factors(kind, 2, drawn)
        found.append({f"{k} {n}": t for k, f in factors.items() for n, t in f.tensors.items()})
    for key, value in found[0].items():
        assert_close(found[1][key], value, key)


@pytest.mark.interpreter
@pytest.mark.parametrize("contractions", ["fused", "vendor"])
def test_who_computes_contractions_makes_no_difference(contractions: str):
    net = nt.Sequential(nt.Conv2d(8, 3, stride=2, groups=2), nt.SiLU(), nt.Flatten(), nt.Linear(3))
    both(net, (4, 9, 9), 3, "ce", 4, contractions=contractions)


@pytest.mark.interpreter
def test_numbers_are_rounded_before_they_are_written():
    w = ops.param("w", (3, 1, 1, 1))
    ones = ops.broadcast(ops.const(1.0 + 2.0**-11), (N, 2, 2, 1))
    window = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    graph = Graph("ones", {"out": ops.make(Op.CONV, ones, w, **window)})
    executor = FusedExecutor(graph, (), Selection(Settings("tf32", "fused", interpreted=True)))
    context = Context(2, torch.float32, torch.device("cpu"))
    (found,) = executor(context, {w: torch.ones(3, 1, 1, 1)}).values()
    assert found.eq(1.0 + 2.0**-10).all()


@pytest.mark.interpreter
def test_two_runs_are_bitwise_equal():
    net = nt.Sequential(nt.Conv2d(8, 3), nt.SiLU(), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (3, 8, 8), nt.CrossEntropyLoss(), backend="triton", device="cpu")
    x, y = batch((3, 8, 8), 3, "ce", 5)
    first, second = answers(model, x, y), answers(model, x, y)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.interpreter
def test_two_linearizations_live_at_once():
    net = nt.Sequential(nt.Linear(6), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), backend="triton", device="cpu")
    x, y = batch((4,), 3, "ce", 5)
    v = torch.randn(model.params.numel(), generator=torch.Generator().manual_seed(0))
    alone = model.linearize(x, y).hvp(v)
    first = model.linearize(x, y)
    other = model.linearize(-x, y)
    kept = first.gradient.clone()
    other.hvp(v)
    assert torch.equal(first.hvp(v), alone) and torch.equal(first.gradient, kept)


@pytest.mark.interpreter
def test_a_step_of_fitre_is_the_same_on_both_backends():
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.Flatten(), nt.Linear(3))
    x, y = batch((2, 6, 6), 3, "ce", 8)
    params = []
    for backend in ("aten", "triton"):
        model = nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), backend=backend, device="cpu")
        optimizer = nt.FITRE(model)
        for _ in range(2):
            assert optimizer.step(x, y).accepted
        params.append(model.params)
    assert_close(params[1], params[0])


@pytest.mark.interpreter
@pytest.mark.parametrize(("precision", "shared"), [("ieee", 0), ("tf32", 1)])
def test_tensor_cores_take_three_products_of_a_form_in_one_loop(precision: str, shared: int):
    torch.manual_seed(0)  # H is indefinite: where its parts cancel, no error is relative to a form
    net = nt.Sequential(nt.Conv2d(16, 3), nt.SiLU(), nt.Conv2d(16, 3), nt.SiLU(), nt.Flatten())
    x, y = torch.randn(3, 2, 6, 6), torch.randn(3, 64)
    exact, fast = (
        nt.compile(net, (2, 6, 6), nt.MSELoss(), device="cpu", **options)
        for options in (
            {"backend": "aten", "dtype": torch.float64},
            {"backend": "triton", "precision": precision},
        )
    )
    exact.load_state_dict({name: p.double() for name, p in fast.state_dict().items()})
    v = torch.randn_like(fast.params)
    form = fast.linearize(x, y).quadratic_forms([v])
    wanted = exact.linearize(x.double(), y.double()).quadratic_forms([v.double()])
    assert relative_error(form.double(), wanted) < LIMITS[precision]
    program = fast.programs[True].quadratic(1, two_products=fast.two_products(len(x)))
    kernels = fast.runner.executor(program).plan(3).schedule.kernels  # type: ignore[attr-defined]
    assert sum(k.shares_loop for k in kernels) == shared


@pytest.mark.interpreter
def test_names_never_become_code():
    name = 'x"); import os; os.abort(); ("'
    with made_at(name):
        x, w = ops.input_(name, (N, 2)), ops.param(name, (3, 2))
        graph = Graph("named", {name: ops.matmul(x, w, tb=True)})
    executor = FusedExecutor(graph, (), Selection(Settings(contractions="fused", interpreted=True)))
    one = Context(1, torch.float32, torch.device("cpu"))
    (result,) = executor(one, {x: torch.ones(1, 2), w: torch.ones(3, 2)}).values()
    assert result.tolist() == [[2.0, 2.0, 2.0]] and "abort" not in executor.plan(1).source


def test_without_gpu_or_interpreter_the_backend_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    net = nt.Sequential(nt.Linear(3))
    with pytest.raises(nt.NewtritonError, match=r"needs a GPU.*TRITON_INTERPRET=1"):
        nt.compile(net, (2,), nt.MSELoss(), backend="triton", device="cpu")
    with pytest.raises(nt.NewtritonError, match="precision 'tf32' needs the triton backend"):
        nt.compile(net, (2,), nt.MSELoss(), precision="tf32", device="cpu")


def test_the_backend_computes_in_float32():
    net = nt.Sequential(nt.Linear(3))
    with pytest.raises(nt.NewtritonError, match=r"float32, not torch\.float64"):
        nt.compile(net, (2,), nt.MSELoss(), backend="triton", device="cpu", dtype=torch.float64)


def test_the_arena_is_smaller_than_all_values_together():
    net = nt.Sequential(nt.Conv2d(8, 3), nt.SiLU(), nt.Conv2d(8, 3), nt.SiLU(), nt.Flatten())
    model = nt.compile(net, (3, 12, 12), nt.MSELoss(), backend="triton", device="cpu")
    text = model.explain(16)
    plan = model.runner.executor(model.programs[True].hvp).plan(16)  # type: ignore[attr-defined]
    assert 0 < plan.storage.arena.size < sum(life.size for life in plan.storage.lifetimes.values())
    assert "launches" in text.splitlines()[0]


def test_batch_norm_writes_over_what_nobody_reads_again():
    net = nt.Sequential(nt.Conv2d(8, 3, bias=False), nt.BatchNorm2d(), nt.SiLU(), nt.Flatten())
    model = nt.compile(net, (3, 12, 12), nt.MSELoss(), backend="triton", device="cpu")
    plan = model.runner.executor(model.programs[True].ggnvp).plan(16)  # type: ignore[attr-defined]
    assert plan.storage.block
    for later, earlier in plan.storage.block.items():
        assert plan.storage.lifetimes[earlier].last <= plan.storage.lifetimes[later].first
    assert plan.storage.arena.size < arena(plan.storage.lifetimes).size


def test_tape_and_scratch_of_vgg11_are_less_than_eager_pytorch_holds():
    model = nt.compile(nt.models.vgg11(), (3, 32, 32), nt.CrossEntropyLoss(), backend="aten")
    p, selection = model.programs[True], Selection(Settings("ieee", "fused"))
    first = FusedExecutor(p.linearize.graph, p.tape, selection).plan(200)
    second = FusedExecutor(p.hvp.graph, (), selection).plan(200, first.made)
    results = [b for plan in (first, second) for b in plan.storage.results]
    kept = 4 * sum(node.type.numel(200) for node in results)
    assert kept + max(first.scratch, second.scratch) <= 0.65 * double_backward(200).peak


def test_plans_of_the_last_batch_sizes_are_kept() -> None:
    model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), backend="triton", device="cpu")
    fused = model.runner.executor(model.programs[True].linearize)
    assert isinstance(fused, FusedExecutor)
    fused.plans.most = 3
    plans = {batch: fused.plan(batch) for batch in (1, 2, 3)}
    assert fused.plan(1) is plans[1]
    fused.plan(4)
    assert [*fused.plans] == [3, 1, 4]
    assert fused.plan(1) is plans[1]
    assert fused.plan(2) is not plans[2]


def test_the_memory_of_a_plan_is_counted_before_it_is_taken() -> None:
    net = nt.Sequential(nt.Linear(7), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (5,), nt.MSELoss(), backend="triton", device="cpu")
    known = model.programs[True]
    program = known.linearize
    (count,) = model.runner.footprints(known, [program], 16).values()
    plan = model.runner.executor(program, known.tape).plan(16, program.inputs.values())
    assert plan is not None
    results = [n for n in plan.storage.results if n not in plan.storage.given]
    returned = 4 * sum(n.type.numel(16) for n in results)
    copies = 4 * 16 * (5 + 3) if plan._copies_data else 0
    assert count(16) == (plan.scratch + returned + copies,) * 2
    assert count(64).peak < 4 * count(16).peak  # weights are as many
    assert count(64).peak > 3 * count(16).peak - 8 * model.params.nbytes
