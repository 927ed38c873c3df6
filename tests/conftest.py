"""Small problems only: threads would cost more than they give. Kernels run interpreted.

A test that runs a Triton kernel in the interpreter has the marker `interpreter`. The modules and
parameters below give it, a decorator where neither can. One without it fails at its first kernel.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: no GPU here
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is

import dataclasses
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from weakref import WeakValueDictionary

import pytest

TRITON = find_spec("triton") is not None
TESTS = Path(__file__).parent
INTERPRETED = (  # modules all of whose tests run kernels
    "bench/test_kernels.py",
    "bench/test_vectors.py",
    "kernels/test_contraction.py",
    "kernels/test_functions.py",
    "kernels/test_lags.py",
)
INTERPRETED_PARAMETERS = ("triton",)  # values of parameters with which tests do


def _runs_kernels(item: pytest.Item) -> bool:
    """Whether a test runs Triton kernels, by its place or by its parameters."""
    place = item.path.relative_to(TESTS).as_posix()
    call = getattr(item, "callspec", None)
    names = [] if call is None else [v for v in call.params.values() if isinstance(v, str)]
    return place in INTERPRETED or any(name in INTERPRETED_PARAMETERS for name in names)


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that run kernels and puts them first: the slowest are not to be last."""
    for item in items:
        if _runs_kernels(item):
            item.add_marker(pytest.mark.interpreter)
    items.sort(key=lambda item: item.get_closest_marker("interpreter") is None)


@pytest.fixture(autouse=True)
def _kept() -> Iterator[None]:
    """A test that states little memory leaves the next ones their blocks for later use."""
    from newtriton.kernels import memory  # noqa: PLC0415

    yield
    memory._blocks.most = memory.KEPT


@pytest.fixture
def own_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of this test's own: a printed graph names who made a node first, maybe another test."""
    from newtriton.compiler.graph import ir  # noqa: PLC0415

    monkeypatch.setattr(ir, "_interned", WeakValueDictionary())


@pytest.fixture(autouse=True, scope="session")
def _small(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One thread, a folder for generated modules, and an interpreter without its sanitizer.

    The sanitizer of integer overflow takes half of the time and says nothing: what it finds goes to
    device assertions, which the interpreter does not make.
    """
    import torch  # noqa: PLC0415 - not by the process that only hands out tests

    torch.set_num_threads(1)
    os.environ["NEWTRITON_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    if TRITON:
        from triton.runtime.interpreter import interpreter_builder as builder  # noqa: PLC0415

        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)


@pytest.fixture(autouse=True)
def _kernels_run_only_where_marked(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails a test that runs a kernel without the marker."""
    if not TRITON or request.node.get_closest_marker("interpreter"):
        return
    from triton.runtime.interpreter import InterpretedFunction  # noqa: PLC0415

    def refuse(*arguments: object, warmup: bool, **options: object) -> None:
        if not warmup:
            pytest.fail("this test runs a Triton kernel: give it the marker `interpreter`")

    monkeypatch.setattr(InterpretedFunction, "run", refuse)
