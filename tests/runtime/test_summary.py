"""Models, optimizers and histories print what they are, where, and how far: a screen at most."""

from __future__ import annotations

import torch

import newtriton as nt
from newtriton.runtime.summary import LINES, ROWS, WIDTH, summary

SCREEN = 40
X, Y = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3


def compiled(layers: int = 1) -> nt.Model:
    body = [layer for _ in range(layers) for layer in (nt.Linear(6), nt.BatchNorm1d(), nt.Tanh())]
    net = nt.Sequential(*body, nt.Linear(3))
    return nt.compile(net, (4,), nt.CrossEntropyLoss(), backend="aten", device="cpu")


def check(text: str, *fragments: str) -> None:
    assert len(text.splitlines()) <= SCREEN
    assert max(map(len, text.splitlines())) <= WIDTH
    for fragment in fragments:
        assert fragment in text


def test_long_texts_and_tables_are_cut() -> None:
    text = summary("A", {"b": "word " * 1000, "c": None}, [("d", "e")] * 100)
    check(text, "…", f"… {100 - ROWS} more")
    assert len(text.splitlines()) == 1 + LINES + ROWS + 1
    assert "c:" not in text


def test_a_model_prints_layers_sizes_and_options() -> None:
    model = compiled()
    model.freeze("0")
    check(
        str(model), "Model of 63 parameters, 30 of them frozen", "Sequential(Linear(6)",
        "CrossEntropyLoss()", "input: (4,)", "cpu, backend aten", "torch.float32, precision ieee",
        "weight 6×4, bias 6", "running statistics: 13 numbers",
    )  # fmt: skip
    row = next(line for line in str(model).splitlines() if line.startswith("  0 "))
    assert row.split() == ["0", "weight", "6×4,", "bias", "6", "30", "weight,", "bias"]
    check(str(compiled(30)), "more")
    assert repr(model) == "<Model of 63 parameters on cpu>"


def test_an_optimizer_prints_parts_options_and_steps() -> None:
    model = compiled()
    optimizer = nt.KFAC(model, every=3)
    optimizer.step(X, Y)
    check(
        str(optimizer), "KFAC of <Model of 63 parameters on cpu>", "curvature: KroneckerCurvature(",
        "solver: KFI(", "rule: TrustRegion(", f"damping: {optimizer.damping:g}", "every=3",
        "steps: 1, 0 refused",
    )  # fmt: skip


def test_an_optimizer_of_pytorch_prints_its_options_as_they_are() -> None:
    optimizer = nt.Preconditioned(compiled(), torch.optim.SGD, lr=0.1, clip=0.5)
    optimizer.step(X, Y)
    optimizer.optimizer.param_groups[0]["lr"] = 0.05
    check(
        str(optimizer), "torch.optim.SGD", "lr=0.05", "KroneckerCurvature(", "KFI(", "clip: 0.5",
        "steps: 1 since it was made, 0 refused",
    )  # fmt: skip


def test_a_history_prints_its_epochs_and_the_last_step() -> None:
    model = compiled()
    batches = nt.Batches(X, Y, 30)
    history = nt.fit(model, nt.KFAC(model), batches, (X, Y), epochs=2, progress=False)
    text = str(history)
    check(text, "History of 2 epochs, 4 steps", "validation accuracy", "refused: ", "last step: ")
    assert f"{history.epochs[1].loss:.5g}" in text.splitlines()[-1]
    assert repr(history) == text
    history.epochs *= 100
    history.interrupted = True
    check(str(history), "200 epochs", "interrupted", "more")
    check(str(nt.History()), "History of 0 epochs, 0 steps")
