"""New memory: of the shape that is asked for, aligned as PyTorch's is, and nobody else's."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from newtriton.kernels import memory
from newtriton.kernels.memory import ALIGNMENT, LARGE, empty, empty_like

CPU = torch.device("cpu")
SIZE = LARGE // 4 + 12345  # of no other test


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("rows", [0, 1, LARGE // 8])
def test_shape_dtype_and_alignment(dtype: torch.dtype, rows: int) -> None:
    x = empty((rows, 3), dtype, CPU)
    assert (x.shape, x.dtype, x.is_contiguous()) == ((rows, 3), dtype, True)
    assert x.data_ptr() % ALIGNMENT == 0
    y = empty_like(x.fill_(1).T)
    assert (y.shape, y.is_contiguous()) == ((3, rows), True)
    assert torch.equal(y.fill_(1), x.T) and (not rows or y.data_ptr() != x.data_ptr())


def made() -> Tensor:
    return empty((SIZE,), torch.float32, CPU)


def test_a_block_is_used_again_once_nothing_holds_it() -> None:
    first = made()
    place, view = first.data_ptr(), first[5:].view(-1, 1)
    assert made().data_ptr() != place
    del first
    assert made().data_ptr() != place  # the view holds it
    array = view.numpy()
    del view
    assert made().data_ptr() != place  # the array holds it
    del array
    assert place in {t.data_ptr() for t in (made(), made())}


def test_results_that_live_at_once_lie_apart() -> None:
    tensors = [made() for _ in range(5)]
    for i, t in enumerate(tensors):
        t.fill_(float(i))
    assert [float(t.max()) for t in tensors] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_no_more_is_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = memory._Blocks()
    monkeypatch.setattr(memory, "KEPT", 3 * LARGE)
    held = [torch.from_numpy(blocks.free(LARGE)) for _ in range(5)]
    assert blocks.total == 3 * LARGE
    assert len({t.data_ptr() for t in held}) == 5
    del held
    torch.from_numpy(blocks.free(2 * LARGE))
    assert blocks.total == 2 * LARGE and not blocks.by_size[LARGE]


def test_threads_have_blocks_of_their_own() -> None:
    here, there = made(), list[int]()
    place = here.data_ptr()
    del here
    thread = threading.Thread(target=lambda: there.append(made().data_ptr()))
    thread.start()
    thread.join()
    assert there != [place]


def test_numpys_error_gives_way_to_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr(memory.np, "empty", full)
    size = 2 * LARGE + 64  # none of this size is kept
    assert empty((size,), torch.uint8, torch.device("cpu")).shape == (size,)
    with pytest.raises(RuntimeError, match="allocate"):
        empty((1 << 60,), torch.uint8, torch.device("cpu"))


def test_less_is_kept_where_memory_is_short() -> None:
    def work() -> None:
        held = [empty((LARGE,), torch.uint8, torch.device("cpu")) for _ in range(2)]
        del held
        assert memory._blocks.total == 2 * LARGE
        memory.keep_at_most(LARGE)
        assert memory._blocks.total == 0
        empty((LARGE,), torch.uint8, torch.device("cpu"))
        assert memory._blocks.total == LARGE

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
