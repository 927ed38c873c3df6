"""A module that cannot be traced is refused in a sentence, which says where; nothing is printed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from newtriton.compiler.capture.captured import capture
from newtriton.compiler.graph.errors import NewtritonError

from ...modules import Written


class Net(nn.Module):
    """A head that does not fit its features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2))
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))  # where it fails


def refusal(module: nn.Module, x: Tensor) -> str:
    with pytest.raises(NewtritonError) as raised:
        capture(module, x)
    return str(raised.value)


def test_the_layer_that_does_not_fit_is_named_with_the_line_that_calls_it() -> None:
    said = refusal(Net(), torch.zeros(2, 1, 3, 3))
    place = (
        r"at \S*test_failures\.py:(\d+), `return self\.head\(self\.features\(x\)\.flatten\(1\)\)"
    )
    found = re.match(rf"Net does not take the example: head \(Linear\) got 2×18 {place}", said)
    assert found is not None, said
    with open(__file__, encoding="utf-8") as file:
        assert "# where it fails" in file.readlines()[int(found[1]) - 1]
    assert "2x18 and 9x3" in said


def test_a_layer_inside_of_pytorchs_has_its_path_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(5, 2)))
    said = refusal(module, torch.zeros(2, 3))
    assert said.startswith(
        "Sequential does not take the example: 1.1 (Linear) got 2×4: RuntimeError: mat1 and mat2"
    )


def test_sizes_that_do_not_go_together_in_forward_have_its_line() -> None:
    module = Written(lambda m, x: m.f(x) + torch.ones(2), f=nn.Linear(3, 3))
    said = refusal(module, torch.zeros(2, 3))
    assert "does not take the example: forward (Written) got 2×3 at " in said
    assert "`module = Written(lambda m, x: m.f(x) + torch.ones(2), f=nn.Linear(3, 3))`" in said


def test_recurrent_layers_are_named() -> None:
    module = Written(lambda m, x: m.f(x)[0], f=nn.LSTM(3, 4))
    said = refusal(module, torch.zeros(2, 5, 3))
    assert said.startswith("Written has f: recurrent layers are not taken: use convolutions")


def test_whatever_forward_raises_is_quoted() -> None:
    def raises(m: nn.Module, x: Tensor) -> Tensor:
        raise KeyError("layer")

    said = refusal(Written(raises, f=nn.Linear(3, 3)), torch.zeros(2, 3))
    assert said.endswith("`raise KeyError(\"layer\")`: KeyError: 'layer'")


def test_a_module_that_fails_is_left_as_it_was() -> None:
    module, x = Net(), torch.randn(2, 1, 3, 3)
    module.head.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    generator = torch.random.get_rng_state()
    refusal(module, x)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert (module.training, module.head.training) == (True, False)
    assert torch.equal(generator, torch.random.get_rng_state())
    assert not module._forward_hooks


def branching(m: Any, x: Tensor) -> Tensor:
    y = m.f(x)
    return y if y.sum() > 0 else -y


def looping(m: Any, x: Tensor) -> Tensor:
    y = m.f(x)
    while y.norm() > 1:
        y = y / 2
    return y


@pytest.mark.parametrize(
    ("forward", "line"),
    [(branching, "return y if y.sum() > 0 else -y"), (looping, "while y.norm() > 1:")],
)
def test_a_branch_on_values_is_named_by_its_line_and_no_graph_is_printed(
    forward: Callable[..., Tensor], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    said = refusal(Written(forward, f=nn.Linear(3, 3)), torch.zeros(2, 3))
    assert re.search(rf"branches on values at \S*test_failures\.py:\d+, `{re.escape(line)}`", said)
    assert capfd.readouterr() == ("", "")


def test_what_forward_prints_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    def prints(m: Any, x: Tensor) -> Tensor:
        print("here", file=sys.stderr)
        return branching(m, x)

    refusal(Written(prints, f=nn.Linear(3, 3)), torch.zeros(2, 3))
    assert set(capfd.readouterr().err.split()) == {"here"}
