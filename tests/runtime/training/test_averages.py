"""An average of the parameters is what can stand in their place."""

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training.averages import average_of


def test_the_average_of_an_optimizer_is_found() -> None:
    model = nt.compile(nt.Linear(2), (2,), nt.CrossEntropyLoss(), device="cpu")
    optimizer = nt.KFAC(model, average=0.9)
    assert average_of(optimizer) is optimizer.average
    for without in (nt.KFAC(model, average=None), nt.TorchOptimizer(model, torch.optim.SGD)):
        with pytest.raises(NewtritonError, match="keeps no average of the parameters"):
            average_of(without)
