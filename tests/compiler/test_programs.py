"""Every program against float64 autograd on random networks, and what each costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.compiler.graph.cost import flops, units
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.graph.ir import VIEWS, Node, Op
from newtriton.compiler.graph.program import Output, Program
from newtriton.compiler.graph.verify import verify
from newtriton.compiler.language.network import trace
from newtriton.compiler.programs import MATRICES, Programs
from tests.networks import Autograd, Pair, labels, logistic, pairs, welsch
from tests.tolerances import assert_close

LOSSES = (
    *(nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss(), logistic, welsch),
    *(nt.SigmoidMarginLoss(root="clip"), nt.MixtureLoss("fisher"), nt.MixtureLoss("clip")),
    nt.Scaled(nt.CrossEntropyLoss(), 1e5),
)


@seed(0)
@settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    pair=pairs(),
    loss=st.sampled_from(LOSSES),
    training=st.booleans(),
    number=st.integers(0, 99),
)
def test_programs_agree_with_autograd(
    pair: Pair, loss: nt.Loss, training: bool, number: int
) -> None:
    torch.manual_seed(number)
    assume(pair.outputs == 3 or not isinstance(loss, nt.MixtureLoss))
    module = pair.theirs.double().train(training)
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    model = nt.compile(pair.ours, pair.shape, loss, dtype=torch.float64, weight_decay=0.05)
    model.load_state_dict(module.state_dict())
    x = torch.randn(4, *pair.shape, dtype=torch.float64)
    y = labels(loss, 4, pair.outputs, torch.float64)
    u, v = torch.randn(2, model.params.numel(), dtype=torch.float64)

    lin = model.linearize(x, y, training=training)
    oracle = Autograd(model, module, loss, x, y)
    assert_close(lin.loss, oracle.loss.detach(), "loss")
    assert_close(lin.outputs, oracle.z.detach(), "outputs")
    assert_close(lin.gradient, oracle.gradient, "gradient")
    hu, hv, gu, gv = oracle.hvp(u), oracle.hvp(v), oracle.ggnvp(u), oracle.ggnvp(v)
    assert_close(lin.hvp(u), hu, "hvp")
    assert_close(lin.ggnvp(u), gu, "ggnvp")
    hessian = torch.stack([torch.stack([u @ hu, u @ hv]), torch.stack([v @ hu, v @ hv])])
    ggn = torch.stack([torch.stack([u @ gu, u @ gv]), torch.stack([v @ gu, v @ gv])])
    assert_close(lin.quadratic_forms([u, v], two_products=True), hessian, "forms by two products")
    assert_close(
        lin.quadratic_forms([u, v], two_products=False), hessian, "forms by three products"
    )
    assert_close(lin.quadratic_forms([u, v], "ggn"), ggn, "forms of the GGN")

    programs = model.programs[training]
    for program in (programs.evaluate, programs.linearize, programs.hvp, programs.ggnvp):
        verify(program.graph)
    verify(programs.quadratic(2).graph)
    for kind in programs.kinds:
        verify(programs.factors(kind, 2).graph)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_two_products_are_as_precise_as_three_in_float32(scale: float) -> None:
    torch.manual_seed(0)
    net = nt.Sequential(
        nt.Conv2d(8, 3, padding=1), nt.SiLU(), nt.Conv2d(8, 3, padding=1), nt.SiLU(),
        nt.MaxPool2d(2), nt.Flatten(), nt.Linear(4),
    )  # fmt: skip
    exact = nt.compile(net, (3, 8, 8), nt.CrossEntropyLoss(), dtype=torch.float64)
    model = nt.compile(net, (3, 8, 8), nt.CrossEntropyLoss())
    model.load_state_dict(exact.state_dict())
    x, y = torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))
    v = scale * torch.randn_like(model.params)
    expected = exact.linearize(x.double(), y).quadratic_forms([v.double()])
    form = model.linearize(x, y).quadratic_forms([v], two_products=True)
    assert_close(form, expected.float(), "form")


def test_a_direction_confined_to_one_layer_has_an_exact_form() -> None:
    torch.manual_seed(0)
    net = nt.Sequential(nt.Linear(6), nt.Tanh(), nt.Linear(5), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (4,), nt.MSELoss(), dtype=torch.float64)
    x, y = torch.randn(7, 4, dtype=torch.float64), torch.rand(7, 3, dtype=torch.float64)
    lin = model.linearize(x, y)
    for layer in ("0", "2", "4"):
        v = torch.zeros_like(model.params)
        for name, view in model.unflatten(v).items():
            if name.startswith(layer):
                view.normal_()
        for two in (True, False):
            assert_close(lin.quadratic_forms([v], two_products=two)[0, 0], v @ lin.hvp(v), layer)
    assert lin.quadratic_forms([torch.zeros_like(v)], two_products=True).item() == 0.0


def vgg11_programs() -> Programs:
    return Programs(trace(nt.models.vgg11(), (3, 32, 32), nt.CrossEntropyLoss()))


def test_units_of_work_are_as_budgeted() -> None:
    layers, programs = 9, vgg11_programs()
    assert units(programs.evaluate.graph) == layers
    assert units(programs.linearize.graph) == 3 * layers - 1
    assert units(programs.hvp.graph) == 6 * layers - 4
    assert units(programs.ggnvp.graph) == 4 * layers - 2
    for k in (1, 2, 3):
        pairs_of_directions = k * (k - 1) // 2
        hessian = k * (2 * layers - 1) + pairs_of_directions * (layers - 1)
        assert units(programs.quadratic(k).graph) == hessian
        assert units(programs.quadratic(k, "ggn").graph) == k * (2 * layers - 1)
    assert units(programs.quadratic(1, two_products=False).graph) == 3 * layers - 2
    assert units(programs.factors("empirical").graph) == 0
    for samples in (1, 3):
        assert units(programs.factors("kfac", samples).graph) == layers - 1


def test_flops_are_those_of_the_operators_that_run() -> None:
    torch.manual_seed(0)
    net = nt.Sequential(
        nt.Conv2d(6, 3, padding=1), nt.SiLU(), nt.Conv2d(4, 3, stride=2), nt.Tanh(),
        nt.Flatten(), nt.Linear(5), nt.Sigmoid(), nt.Linear(3),
    )  # fmt: skip
    model = nt.compile(net, (2, 8, 8), nt.CrossEntropyLoss())
    programs = model.programs[True]
    x, y, v = torch.randn(5, 2, 8, 8), torch.randint(0, 3, (5,)), torch.randn_like(model.params)
    lin = model.linearize(x, y)
    calls = {
        programs.linearize: lambda: model.linearize(x, y),
        programs.hvp: lambda: lin.hvp(v),
        programs.ggnvp: lambda: lin.ggnvp(v),
        programs.quadratic(1): lambda: lin.quadratic_forms([v], two_products=True),
    }
    for program, call in calls.items():
        graph = program.graph
        with FlopCounterMode(display=False) as counter:
            call()
        contractions = sum(
            flops(type(graph)("one", {"x": n}, frozenset(n.inputs)), 5)
            for n in graph.computed()
            if n.op.value.startswith(("conv", "matmul"))
        )
        assert counter.get_total_flops() == contractions, graph.name


def every_program(programs: Programs) -> list[Program]:
    """All programs of a network whose loss has all curvatures."""
    return [
        programs.evaluate, programs.outputs, programs.scores, programs.linearize, programs.hvp,
        programs.ggnvp, programs.jacobian, programs.stored_ggnvp(), programs.stored_ggnvp(True),
        programs.quadratic(2), programs.quadratic(1, "ggn"),
        *(programs.factors(kind, 2) for kind in KINDS),
        programs.factors("kfac", 1, frozenset({"0"})),
    ]  # fmt: skip


@pytest.mark.parametrize("loss", [nt.CrossEntropyLoss(), nt.MSELoss(), nt.MixtureLoss("fisher")])
@pytest.mark.parametrize("norm", [False, True])
def test_programs_declare_all_that_they_read_and_give(loss: nt.Loss, norm: bool) -> None:
    norms = [nt.BatchNorm2d(affine=False)] if norm else []
    net = nt.Sequential(nt.Conv2d(4, 3), *norms, nt.Tanh(), nt.Flatten(), nt.Linear(3))
    programs = Programs(trace(net, (2, 4, 4), loss, training=False))
    for program in every_program(programs) if not norm else [programs.linearize, programs.hvp]:
        leaves = {n for n in program.graph.nodes() if n.op in (Op.INPUT, Op.PARAM)}
        assert set(program.inputs.values()) == leaves, program.name
        assert len(program.inputs) == len(leaves), program.name
        printed = {str(key): node for key, node in program.outputs.items()}
        assert printed == program.graph.outputs, program.name


def test_the_tape_asks_for_no_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[Output, Node]:
        raise AssertionError("factors were asked for")

    monkeypatch.setattr("newtriton.compiler.programs.factors", refuse)
    programs = vgg11_programs()
    assert programs.tape
    with pytest.raises(AssertionError):
        programs.factors("kfac")


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_factors_start_from_the_tape_and_compute_nothing_of_it_again(loss: nt.Loss) -> None:
    net = nt.Sequential(
        nt.BatchNorm2d(), nt.Conv2d(4, 3, padding=1), nt.SiLU(), nt.MaxPool2d(2),
        nt.Residual(nt.Conv2d(4, 3, padding=1, groups=2)), nt.Flatten(), nt.Linear(3),
    )  # fmt: skip
    for training in (True, False):
        for shape, layers in (((2, 6, 6), net), ((4,), nt.Linear(3))):
            programs = Programs(trace(layers, shape, loss, training=training))
            linearized = set(programs.linearize.graph.computed())
            for kind in programs.kinds:
                again = linearized.intersection(programs.factors(kind).graph.computed())
                assert {n.op for n in again} <= VIEWS, (kind, again)


def networks_with_a_tape() -> Iterator[Programs]:
    """Yields programs of networks with all kinds of layers, with all losses."""
    for loss in (*LOSSES, nt.SigmoidMarginLoss()):
        for training in (True, False):
            yield Programs(trace(small_cnn(), (2, 8, 8), loss, training=training))
            yield Programs(trace(nt.Linear(3), (4,), loss, training=training))
    for batch_norm in (True, False):
        yield Programs(trace(nt.models.vgg11(batch_norm=batch_norm), (3, 32, 32), LOSSES[0]))


def small_cnn() -> nt.Sequential:
    return nt.Sequential(
        nt.BatchNorm2d(), nt.Conv2d(4, 3, padding=1), nt.SiLU(), nt.MaxPool2d(2),
        nt.Residual(nt.Conv2d(4, 3, padding=1, groups=2)), nt.Flatten(), nt.Linear(3),
    )  # fmt: skip


def programs_after_linearizing(programs: Programs) -> Iterator[Program]:
    """Yields those that can be made of the programs that start from a linearization."""
    makers: list[Callable[[], Program]] = [
        lambda: programs.hvp, lambda: programs.ggnvp, lambda: programs.jacobian,
        programs.stored_ggnvp, lambda: programs.stored_ggnvp(by_layer=True),
        *(partial(programs.quadratic, k, c, two)
          for k in (1, 2) for c in MATRICES for two in (True, False)),
        *(partial(programs.factors, kind, 2) for kind in KINDS),
    ]  # fmt: skip
    for make in makers:
        with suppress(NewtritonError):
            yield make()


def test_programs_start_from_nothing_but_the_tape() -> None:
    for programs in networks_with_a_tape():
        for program in programs_after_linearizing(programs):
            assert program.graph.given <= programs.tape, program.name


def test_what_is_not_on_the_tape_is_computed_again() -> None:
    programs = Programs(trace(small_cnn(), (2, 8, 8), nt.CrossEntropyLoss(), training=False))
    programs.__dict__["tape"] = frozenset()
    made = {p.name: p.graph for p in programs_after_linearizing(programs)}
    for name in ("quadratic(2, hessian)", "quadratic(2, ggn)", "jacobian", "stored_ggnvp"):
        assert not made[name].given, name


def test_the_tape_is_shared_and_holds_no_views() -> None:
    programs = vgg11_programs()
    linearized = set(programs.linearize.graph.nodes())
    assert programs.tape <= linearized
    assert not any(n.op.value in ("broadcast", "reshape", "transpose") for n in programs.tape)


def test_the_first_layer_costs_nothing_in_vain() -> None:
    programs = vgg11_programs()
    ops = [n.op.value for n in programs.linearize.graph.computed()]
    assert ops.count("conv_input_grad") == 7  # of 8 convolutions
    assert ops.count("conv_weight_grad") == 8


def test_factors_never_form_patches() -> None:
    for samples in (1, 2):
        graph = vgg11_programs().factors("kfac", samples).graph
        largest = max(n.type.numel(64) for n in graph.computed() if n.op.value != "patch_gram")
        assert largest <= samples * 64 * 64 * 32 * 32  # no more than the activations themselves


def test_an_unknown_kind_or_curvature_is_named() -> None:
    programs = Programs(trace(nt.Linear(2), (3,), nt.MSELoss()))
    with pytest.raises(NewtritonError, match="kfax"):
        programs.factors("kfax")
    with pytest.raises(NewtritonError, match="fisher"):
        programs.quadratic(1, "fisher")
