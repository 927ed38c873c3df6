"""What is saved comes back with its types, bits and strides."""

import json
import random
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training.encoding import Decoder, Encoder

from .kills import differing


def there_and_back(value: Any, model: Any = None) -> Any:
    flat = () if model is None else (model.layout.numel, model.layout.torch_views)
    encoder = Encoder(*flat)
    text = json.dumps(encoder(value, "state"))
    return Decoder(encoder.tensors, torch.device("cpu"), *flat)(json.loads(text))


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, -0.0, 1e-310, float("inf"), "text", "$tensor", [], (), {}),
        {"$tensor": 1, "b": [1, (2.5, None)]},
        {0: {"step": torch.tensor(3.0)}, "1": 2, (1, 2): 3},
        Counter({30: 1, 80: 2}),
        random.Random(3).getstate(),
        {"a.b": {"c": torch.ones(1)}, "a": {"b.c": torch.zeros(1)}},
        [torch.zeros(0, 3), torch.tensor(True), torch.arange(3, dtype=torch.uint8)],
        torch.tensor([float("nan"), -0.0, float("inf")]).double(),
        torch.randn(2, 3, 4).permute(2, 0, 1),
        torch.randn(3, 4, dtype=torch.bfloat16).T,
    ],
)
def test_a_value_comes_back(value: Any) -> None:
    back = there_and_back(value)
    assert type(back) is type(value)
    if isinstance(value, torch.Tensor):
        assert back.stride() == value.stride()
        assert (
            back.numpy(force=True).tobytes() == value.numpy(force=True).tobytes()
            if (value.dtype != torch.bfloat16)
            else torch.equal(back, value)
        )
    else:
        assert not differing(value, back)


def test_what_is_not_dense_is_copied() -> None:
    assert torch.equal(there_and_back(torch.ones(1, 3).expand(2, 3)), torch.ones(2, 3))
    assert torch.equal(there_and_back(torch.arange(8.0)[::2]), torch.arange(8.0)[::2])


def test_numbers_of_numpy_and_ordered_dictionaries_become_plain_ones() -> None:
    back = there_and_back(OrderedDict(a=np.float32(0.5), b=np.float64(0.1), c=np.int64(2)))
    assert back == {"a": 0.5, "b": 0.1, "c": 2}
    assert {type(part) for part in back.values()} == {int, float}
    name, keys, *rest = there_and_back(np.random.get_state())
    assert keys.dtype == np.uint32
    assert repr((name, keys, *rest)) == repr(np.random.get_state())


def test_what_was_on_a_device_goes_to_the_models() -> None:
    decoder = Decoder({"t": torch.ones(2)}, torch.device("meta"))
    assert decoder({"$tensor": "t", "placed": True}).device.type == "meta"
    assert decoder({"$tensor": "t"}).device.type == "cpu"


def test_a_vector_of_the_parameters_is_saved_by_their_names() -> None:
    model = nt.compile(nt.Sequential(nt.Conv2d(2, 3), nt.Flatten(), nt.Linear(2)), (1, 5, 5),
                       nt.CrossEntropyLoss(), device="cpu")  # fmt: skip
    encoder = Encoder(model.layout.numel, model.layout.torch_views)
    encoder({"velocity": model.params}, "optimizer")
    assert [*encoder.tensors] == [f"optimizer.velocity.{name}" for name in model.state_dict()]
    assert encoder.tensors["optimizer.velocity.0.weight"].shape == (2, 1, 3, 3)
    assert torch.equal(there_and_back(model.params, model), model.params)
    other = nt.compile(nt.Linear(2), (3,), nt.CrossEntropyLoss(), device="cpu")
    saved = encoder({"velocity": model.params}, "optimizer")
    decoder = Decoder(encoder.tensors, model.device, other.layout.numel, other.layout.torch_views)
    with pytest.raises(NewtritonError, match=r"another network, of 0\.weight"):
        decoder(saved)


@pytest.mark.parametrize("value", [lambda: 0, object(), {"a": [torch.float32]}, b"bytes", 1j])
def test_what_cannot_be_saved_is_named(value: Any) -> None:
    with pytest.raises(NewtritonError, match=r"schedule.* is a .* cannot hold"):
        Encoder()({"schedule": value}, "schedule")


@pytest.mark.parametrize(
    "value", [{"$tensor": "none"}, {"$code": "import os"}, {"$tuple": 3}, {"$items": [1]},
              {"$array": ["O", [1], [1, 2]]}, {"$parameters": {}, "dtype": "float32"},
              {"$parameters": {}}, {"$tensor": "t", "order": [0, 0]}]
)  # fmt: skip
def test_what_no_encoder_makes_is_refused(value: Any) -> None:
    with pytest.raises(NewtritonError, match="not what a checkpoint has"):
        Decoder({"t": torch.ones(2, 2)}, torch.device("cpu"))(value)
