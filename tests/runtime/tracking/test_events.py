"""Events come in the order in which things happened, and their numbers have one name each."""

import math

from newtriton.runtime.tracking.events import (
    epoch_event,
    in_order,
    number_of,
    scalars_of,
    step_event,
)


def test_an_epoch_comes_after_the_last_of_its_steps() -> None:
    steps = [{"step": n, "loss": 1.0} for n in (1, 2, 4, 6, 7)]  # of which some were thinned out
    epochs = [{"number": 1, "steps": 3}, {"number": 2, "steps": 6}]
    events = list(in_order(steps, epochs))
    found = [e["step"] if e["event"] == "step" else f"epoch {e['number']}" for e in events]
    assert found == [1, 2, "epoch 1", 4, 6, "epoch 2", 7]


def test_scalars_are_the_measurements_and_stand_at_the_number_of_updates() -> None:
    step = step_event(
        {"step": 7, "epoch": 2, "seconds": 1.5, "loss": math.inf, "accepted": True, "rho": None,
         "status": "solved", "size": [1.0, 2.0], "cg_iterations": 3}
    )  # fmt: skip
    assert scalars_of(step) == {
        "step/seconds": 1.5, "step/loss": math.inf, "step/accepted": 1.0, "step/cg_iterations": 3.0,
    }  # fmt: skip
    epoch = epoch_event({"number": 2, "steps": 8, "loss": 0.5, "validation_loss": None})
    assert scalars_of(epoch) == {"epoch/number": 2.0, "epoch/loss": 0.5}
    assert (number_of(step), number_of(epoch)) == (7, 8)
