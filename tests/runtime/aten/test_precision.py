"""PyTorch's own setting is put back, whatever happens."""

import pytest
import torch

from newtriton.runtime.aten.precision import tensor_cores


def allowed() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("value", [False, True])
def test_the_setting_holds_inside_and_is_put_back(value: bool):
    before = allowed()
    with pytest.raises(ZeroDivisionError), tensor_cores(torch.device("cuda"), value):
        assert allowed() == (value, value)
        raise ZeroDivisionError
    assert allowed() == before


def test_other_devices_change_nothing():
    before = allowed()
    for value in (False, True):
        with tensor_cores(torch.device("cpu"), value):
            assert allowed() == before
