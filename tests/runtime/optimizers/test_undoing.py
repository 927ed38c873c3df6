"""Work that fails is undone, and the error goes on."""

import pytest

from newtriton.runtime.optimizers.undoing import undone


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_undoes_and_lets_the_error_through(error: type[BaseException]):
    calls, raised = [], error("mine")
    with pytest.raises(error) as caught, undone(lambda: calls.append(1)):
        raise raised
    assert caught.value is raised
    assert calls == [1]


def test_leaves_alone_what_ends_well():
    with undone(lambda: pytest.fail("undone")):
        pass
