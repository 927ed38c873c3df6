"""Where a model lives is decided once, when it is compiled."""

import pytest
import torch

import newtriton.runtime.model.compile as compiling


def test_a_gpu_has_its_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "empty", lambda *size, **what: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert compiling._place("cuda") == torch.device("cuda", 2)
    assert compiling._place("cuda:1") == torch.device("cuda", 1)
    assert compiling._place("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert compiling._place(None) == torch.device("cuda", 2)
