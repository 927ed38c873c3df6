"""The order of a check: on a GPU one network's numbers, its times, then the rest, each once."""

import torch

from newtriton.bench import gpu
from newtriton.command.steps import (
    NetworkNumbers,
    Times,
    VectorNumbers,
    gpu_steps,
    interpreted_steps,
)
from newtriton.runtime.checking.networks import LENGTH, SMALL
from newtriton.runtime.model.compile import PRECISIONS


def test_the_first_minutes_give_the_most():
    steps = gpu_steps(["vgg11", "vgg19"], PRECISIONS)
    assert steps[0] == NetworkNumbers("vgg11", 200, "tf32")
    assert str(steps[1]) == "times of first"
    small = [NetworkNumbers(net, 3, "tf32") for net in ("plain", "normed", "patches", "words")]
    assert steps[2:8] == [*small, VectorNumbers(33), VectorNumbers(LENGTH)]


def test_every_network_precision_and_batch_size_has_its_turn_once():
    steps = gpu_steps(["vgg11", "vgg19"], PRECISIONS)
    networks = [s for s in steps if isinstance(s, NetworkNumbers)]
    wanted = {NetworkNumbers(n, 3, p) for n in SMALL for p in PRECISIONS} | {
        NetworkNumbers(n, b, p) for n in ("vgg11", "vgg19") for b in gpu.BATCHES for p in PRECISIONS
    }
    assert len(networks) == len(wanted) and set(networks) == wanted
    names = [s.name for s in steps if isinstance(s, Times)]
    assert sorted(names) == sorted(["first", *gpu.STEPS])


def test_what_was_measured_first_is_not_measured_again(monkeypatch):
    measured = []
    monkeypatch.setattr(gpu.second_order, "measure", lambda *case, **_: measured.append(case[:3]))
    steps = gpu_steps(["vgg19"], ["ieee", "bf16"])
    for step in steps:
        if isinstance(step, Times) and step.name in ("first", "programs"):
            list(step.step(torch.device("cpu")))
    assert measured[0] == ("vgg19", 200, "ieee") and len(set(measured)) == len(measured) == 5
    assert {precision for *_, precision in measured} == {"ieee", "bf16"}


def test_the_interpreter_takes_small_networks_and_no_bfloat16():
    steps = interpreted_steps(["ieee", "bf16"])
    assert steps[: len(SMALL)] == [NetworkNumbers(net, 3, "ieee") for net in SMALL]
    assert steps[len(SMALL) :] == [VectorNumbers(33), VectorNumbers(20_000)]
