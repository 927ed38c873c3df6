"""What an export keeps and leaves: high-level ops, functions without writes, the module itself."""

import pytest
import torch
from torch import Tensor, nn

from newtriton.compiler.capture.calls import is_function, name_of, place_of, source_of
from newtriton.compiler.capture.captured import unknown
from newtriton.compiler.capture.exporting import Exported, exported

from ...modules import Written


def of(module: nn.Module, x: Tensor, training: bool = True) -> Exported:
    return exported(module, x, training, lambda z: z, unknown)


def test_high_level_ops_are_kept_and_composite_ones_without_a_rule_are_not() -> None:
    module = Written(
        lambda m, x: torch.einsum("ni,mi->nm", m.n(m.f(x)).relu_(), m.f.weight),
        f=nn.Linear(3, 3),
        n=nn.LayerNorm(3),
    )
    names = {name_of(call) for call in of(module, torch.zeros(2, 3)).nodes if is_function(call)}
    assert {"linear", "layer_norm", "relu", "bmm"} <= names
    assert not {"relu_", "einsum"} & names


def test_calls_say_where_they_stand() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Tanh()))
    (call,) = [c for c in of(module, torch.zeros(2, 3)).nodes if name_of(c) == "tanh"]
    assert place_of(call) == "1.0 (Tanh)"
    assert "activation.py:" in source_of(call)


def test_changes_of_buffers_are_known_by_name() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    mutated = of(module, torch.zeros(2, 3)).mutated.values()
    assert set(mutated) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert not of(module, torch.zeros(2, 3), training=False).mutated


def test_functions_of_autograd_work_again_after_an_export() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            return 2 * grads[0]

    of(nn.Linear(3, 3), torch.zeros(2, 3))
    x = torch.ones(2, requires_grad=True)
    Twice.apply(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_trace_is_that_of_a_cpu_and_leaves_cudnn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.enabled)
            return self.linear(x)

    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    of(Watching(), torch.zeros(3, 2))
    assert seen and not any(seen)
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("most", [880_801, 65_535])
def test_a_batch_may_be_compared_with_what_cudnn_takes(most: int) -> None:
    """As batch norm does on a GPU (aten/src/ATen/native/Normalization.cpp)."""
    module = Written(lambda m, x: m.f(x) if x.shape[0] <= most else x, f=nn.Linear(2, 2))
    found = of(module, torch.zeros(3, 2))
    assert any(name_of(n) == "linear" for n in found.nodes)
