"""What has changed in place is found; tensors of inference mode are copied, as they do not tell."""

from __future__ import annotations

import torch

from newtriton.runtime.inputs.watch import Watch, own


def test_what_changes_in_place_is_named() -> None:
    first, second = torch.zeros(2), torch.zeros(2)
    watch = Watch([("inputs", first), ("labels", second)])
    assert not watch.changed()
    second.add_(1.0)
    assert watch.changed() == ["labels"]


def test_a_tensor_of_inference_mode_is_copied() -> None:
    with torch.inference_mode():
        x = torch.zeros(2)
        copy = own(x)
    assert copy is not x
    plain = torch.zeros(2)
    assert own(plain) is plain
