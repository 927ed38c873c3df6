"""Fixtures of the tests of fused kernels."""

import pytest
import torch
from torch import Tensor

from newtriton.runtime.fused import plan as plans


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory of plans is full of NaN."""

    class Poisoned:
        def __getattr__(self, name: str):
            return getattr(torch, name)

        @staticmethod
        def empty(*size, **options) -> Tensor:
            return (
                torch.empty(*size, **options)
                .view(-1)
                .view(torch.uint8)
                .fill_(255)
                .view(options["dtype"])
            )

    monkeypatch.setattr(plans, "torch", Poisoned())
