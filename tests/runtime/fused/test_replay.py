"""Launches are recorded when a call comes again at the same addresses, and only then."""

import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, Op
from newtriton.runtime.backend import Context
from newtriton.runtime.fused import replay
from newtriton.runtime.fused.backend import TritonBackend
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.replay import MOST, Replays
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings

from ...tolerances import assert_close

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements, in NumPy


class Recorder:
    """Stands in for CUDA graphs: a recording does the work that was recorded."""

    def __init__(self) -> None:
        self.made, self.replayed = 0, 0

    def __call__(self, work):
        self.made += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


def test_run_then_recorded_then_replayed():
    record, done = Recorder(), []
    replays = Replays(record)
    for _ in range(4):
        replays(lambda: "here", lambda: done.append(1))
    assert len(done) == 4 and record.made == 1 and record.replayed == 3


def test_other_addresses_are_another_recording():
    record, done = Recorder(), []
    replays = Replays(record)
    for address in (1, 2, 1, 2, 1, 2):
        replays(lambda address=address: address, lambda address=address: done.append(address))
    assert done == [1, 2, 1, 2, 1, 2] and record.made == 2


def test_addresses_that_never_return_are_forgotten():
    replays = Replays(Recorder())
    for address in range(3 * MOST):
        replays(lambda address=address: address, lambda: None)
    assert len(replays.known) == MOST


def test_what_cannot_be_recorded_is_run_and_said_once():
    def record(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    replays, done = Replays(record), []
    replays(lambda: 0, lambda: done.append(1))
    with pytest.warns(UserWarning, match="not permitted"):
        replays(lambda: 0, lambda: done.append(1))
    replays(lambda: 0, lambda: done.append(1))
    assert len(done) == 3


class Pools:
    """PyTorch's memory pools of recordings: each lives as long as a graph that uses it."""

    def __init__(self) -> None:
        self.users: dict[int, int] = {}
        self.made, self.streams, self.modes = 0, 0, set[str]()
        self.capturing: int | None = None

    def handle(self) -> int:
        self.made += 1
        return self.made

    def stream(self, device: int) -> SimpleNamespace:
        self.streams += 1
        return SimpleNamespace(device=device, wait_stream=lambda other: None)


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Pools:
    """Stands in for torch.cuda, as far as recordings go."""
    known = Pools()

    class Graph:
        pool: int | None = None

        def capture_begin(self, pool: int, capture_error_mode: str) -> None:
            assert known.users.get(pool) != 0, "the pool is dead"
            assert known.capturing is None, "something else is being recorded"
            known.modes.add(capture_error_mode)
            known.capturing = self.pool = pool
            known.users[pool] = known.users.get(pool, 0) + 1

        def capture_end(self) -> None:
            known.capturing = None

        def replay(self) -> None:
            assert known.users[self.pool] > 0

        def __del__(self) -> None:
            if self.pool is not None:
                known.users[self.pool] -= 1

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", known.stream)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", known.handle)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", known.stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch, "empty", lambda *size, **what: torch.zeros(*size))
    replay._recorder.cache_clear()
    yield known
    replay._recorder.cache_clear()


def test_recordings_outlive_the_first_model(pools: Pools):
    for _ in range(3):  # each model's recordings die with it
        recordings = [replay.cuda_graph(lambda: None) for _ in range(2)]
        for again in recordings:
            again()
        del recordings, again
    assert pools.made == 1 and pools.users == {1: 1}
    assert pools.modes == {"thread_local"}


def test_one_stream_records(pools: Pools):
    replay.cuda_graph(lambda: None)
    before = pools.streams
    replay.cuda_graph(lambda: None)
    assert pools.streams == before + 1  # the current one, which is asked for


def test_a_recording_that_fails_gives_its_pool_up(pools: Pools):
    def refused() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    kept = replay.cuda_graph(lambda: None)
    with pytest.raises(RuntimeError, match="not permitted"):
        replay.cuda_graph(refused)
    kept()
    replay.cuda_graph(lambda: None)()
    assert pools.made == 2 and pools.capturing is None


@pytest.fixture
def program():
    """A network's outputs on fused kernels with a recorder, and what they should be."""
    torch.manual_seed(0)
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, input_shape=(4,), loss=nt.CrossEntropyLoss(), backend="aten")
    program, record = model.programs[True].outputs, Recorder()
    settings = Settings("ieee", "fused", True, 8192, record=record)
    fused = FusedExecutor(program.graph, (), Selection(settings))
    feed = program.feed(model.feed(torch.randn(6, 4)))

    def call() -> torch.Tensor:
        (found,) = fused(model.runner.context(6), feed).values()
        (expected,) = model.runner.executor(program)(model.runner.context(6), feed).values()
        assert_close(found, expected)
        return found

    return call, record, feed


@pytest.mark.interpreter
def test_results_that_are_kept_are_never_written_again(program):
    call, record, _ = program
    results = [call() for _ in range(4)]
    assert all(torch.equal(r, results[0]) for r in results)
    assert len({r.data_ptr() for r in results}) == 4
    assert (record.made, record.replayed) == (1, 3)  # wherever results and data lie


@pytest.mark.interpreter
def test_a_program_at_the_same_addresses_is_recorded(program, monkeypatch: pytest.MonkeyPatch):
    call, record, feed = program
    memory, empty = {}, torch.empty

    def same(*size, **what):
        return memory.setdefault(size, empty(*size, **what))

    monkeypatch.setattr(torch, "empty", same)
    for _ in range(4):
        for x in feed.values():
            x.mul_(0.9)  # other numbers at the same place
        call()
    assert (record.made, record.replayed) == (1, 3)


def recorded(record: Recorder | None) -> nt.Model:
    """A small model whose launches are recorded."""
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.Flatten(), nt.Linear(3))
    backend = TritonBackend(
        Settings("ieee", "fused", True, 8192, record=record), torch.device("cpu")
    )
    return nt.Model(net, (2, 6, 6), nt.CrossEntropyLoss(), backend, torch.float32, 0.0, 0)


@pytest.mark.interpreter
def test_batches_of_a_data_set_are_recorded_once():
    record = Recorder()
    model = recorded(record)
    plain = nt.compile(model.net, (2, 6, 6), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    images, labels = torch.randn(30, 2, 6, 6), torch.randint(0, 3, (30,))
    for start in range(0, 30, 5):  # slices lie elsewhere in every step, and results
        x, y = images[start : start + 5], labels[start : start + 5]
        found, expected = model.objective(x, y), plain.objective(x, y)
        assert found == pytest.approx(expected, rel=1e-5)
    assert (record.made, record.replayed) == (1, 5)


@pytest.mark.interpreter
def test_products_along_any_directions_are_recorded_once():
    record = Recorder()
    model = recorded(record)
    plain = nt.compile(model.net, (2, 6, 6), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    plain.params.copy_(model.params)
    x, y = torch.randn(5, 2, 6, 6), torch.randint(0, 3, (5,))
    linearization, expected = model.linearize(x, y), plain.linearize(x, y)
    found = []
    for _ in range(4):
        v = torch.randn_like(model.params)
        found.append((linearization.hvp(v), expected.hvp(v)))
    for ours, theirs in found:
        assert_close(ours, theirs)
    assert (record.made, record.replayed) == (1, 3)


@pytest.mark.interpreter
def test_two_linearizations_at_once_keep_their_own_data():
    model = recorded(Recorder())
    plain = nt.compile(model.net, (2, 6, 6), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    v = torch.randn_like(model.params)
    batches = [(torch.randn(5, 2, 6, 6), torch.randint(0, 3, (5,))) for _ in range(2)]
    found = [model.linearize(x, y) for x, y in batches]
    expected = [plain.linearize(x, y) for x, y in batches]
    for _ in range(3):  # run, recorded, replayed
        for lin, other in zip(found, expected, strict=True):
            assert_close(lin.hvp(v), other.hvp(v))
            assert_close(lin.gradient, other.gradient)
            pair, same = (each.kronecker_factors("empirical")["0"] for each in (lin, other))
            assert_close(pair.A, same.A)
            assert_close(pair.G, same.G)


@pytest.mark.interpreter
def test_what_waits_for_the_gpu_is_not_recorded():
    x = ops.param("s", (3, 3))
    spectrum = ops.make(Op.SPECTRAL, x, expr=scalar.exp(scalar.var(0)))
    record = Recorder()
    settings = Settings("ieee", "fused", True, 8192, record=record)
    executor = FusedExecutor(Graph("spectrum", {"out": spectrum}), (), Selection(settings))
    symmetric = torch.eye(3)
    for _ in range(4):
        (found,) = executor(Context(1, torch.float32, torch.device("cpu")), {x: symmetric}).values()
        assert_close(found, torch.e * torch.eye(3))
    assert record.made == 0


@pytest.mark.interpreter
def test_memory_goes_with_the_model():
    model = recorded(None)
    x, y = torch.randn(5, 2, 6, 6), torch.randint(0, 3, (5,))
    gc.disable()  # memory of a GPU must not wait for it
    try:
        lin = model.linearize(x, y)
        product = lin.hvp(lin.gradient)
        model.vectors.gram([lin.gradient, model.params])
        executor = model.runner.executor(model.programs[True].hvp)
        arena = executor.plans[5]._memory.arena  # type: ignore[attr-defined]
        alive = [weakref.ref(t) for t in (arena, lin.gradient, product, *lin._tape.values())]
        del arena, lin, product
        assert [each() is None for each in alive] == [False] + [True] * (len(alive) - 1)
        del model, executor
        assert alive[0]() is None
    finally:
        gc.enable()
