"""What all calls share: what programs are fed, where results lie, what is checked and added."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.values import Data, Labels, ParameterValue, RunningValue


def normed() -> tuple[nt.Model, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nt.Sequential(nt.BatchNorm2d(), nt.Conv2d(4, 3), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (2, 5, 5), nt.CrossEntropyLoss(), backend="aten", weight_decay=0.1)
    return model, torch.randn(4, 2, 5, 5), torch.randint(0, 3, (4,))


def test_a_feed_holds_parameters_and_statistics_where_they_lie() -> None:
    model, x, y = normed()
    feed = model.feed(x, y)
    assert torch.equal(feed[Data("x")], x) and feed[Labels()] is y
    for name, parameter in model.layout.views(model.params).items():
        assert feed[ParameterValue(name)].data_ptr() == parameter.data_ptr()
    for name in model.programs[True].traced.running:
        assert feed[RunningValue(name)] is model.buffers[name]
    assert Labels() not in model.feed(x)


def test_one_value_per_channel_has_no_variance() -> None:
    net = nt.Sequential(nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (3, 1, 1), nt.MSELoss(), backend="aten")
    x, y = torch.zeros(1, 3, 1, 1), torch.zeros(1, 2)
    with pytest.raises(NewtritonError, match="one value per channel has no variance"):
        model.check(model.programs[True].traced, x, y)
    assert model.check(model.programs[False].traced, x, y) is not None
