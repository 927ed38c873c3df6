"""What ranks that train one model tell each other: their shares of a batch, and that they agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ...compiler.graph.errors import ADDRESS
from ...compiler.graph.ir import structure
from ...compiler.graph.program import Input, Output
from ...compiler.language.network import Traced
from ...compiler.programs import Programs
from ...compiler.values import BatchStatistic, Normaliser, Samples
from ..inputs.data import Checked, Demand, check_statistics
from ..inputs.dropout import Drawn
from ..parallel.agreement import check_alike, digest
from ..parallel.dtensors import labels_here
from ..parallel.share import Share, refusing, share_of
from .compiled import Compiled
from .objective import Evaluated, completed, counted, summed


def shared(
    model: Compiled,
    traced: Traced,
    x: Any,
    y: Tensor | None,
    labelled: bool = False,
    fits: Callable[[int], object] = lambda batch: None,
    order: Tensor | None = None,
) -> tuple[Checked, Share | None, dict[Input, Tensor]]:
    """Returns what `check` does, this rank's share of the batch, and what that gives programs.

    The share is None where the model is no data-parallel one. A batch that must be `labelled`
    is refused without labels. `fits` is called with the batch size that programs will have, and
    raises an error where they do not fit into memory. `order` is that of the share.

    Raises:
        NewtritonError: as `check` or `fits` raises it, or another rank has refused its part.
    """

    def check() -> Checked:
        return model.check(traced, x, labels_here(y, model.parallel) if labelled else y)

    if model.parallel is None:
        checked = check()
        fits(checked.batch)
        return checked, None, {}
    _agree(model)
    with refusing(model.ranks, model.device):
        checked = check()
        labels, batch = checked.labels, checked.batch
        count: float | Tensor = float(batch * model.positions)
        if batch and labels is not None:
            count = counted(model, labels, batch)
        fits(max(1, batch))
    share = replace(share_of(model.ranks, batch, count, model.device), order=order)
    check_statistics(traced, share.samples if traced.part == "whole" else share.least)
    numbers = {Samples(): float(share.samples), Normaliser(): share.normaliser}
    like = model.params
    checked = checked if batch else _one_sample(checked)
    return checked, share, {k: like.new_full((), number) for k, number in numbers.items()}


def _agree(model: Compiled) -> None:
    """Compares ranks, once, before they first talk of a batch.

    Raises:
        NewtritonError: they have other versions, networks, options or parameters.
    """
    if model.agreed or model.parallel is None:
        return
    state = [model.params, *model.buffers.values()]
    options = model.weight_decay, model.dtype, model.dropout.state_dict(), sorted(model.frozen)
    parallel = model.parallel
    sums = parallel.batch_norm, parallel.factors, parallel.memory, parallel.bucket
    where = type(model.backend).__name__, model.backend.precision, *sums
    values = [x.detach().cpu().contiguous().numpy().tobytes() for x in state]
    outputs = model.programs[True].linearize.graph.outputs.values()
    facts = {
        "version of newtriton or PyTorch": digest(version("newtriton"), torch.__version__),
        "network": digest(*structure(outputs)),
        "loss or option": digest(ADDRESS.sub("", repr((model.criterion, options, where)))),
        "state of the parameters": digest(*values),
    }
    check_alike(model.ranks, facts)
    model.agreed = True


def _one_sample(empty: Checked) -> Checked:
    """Returns a batch of one sample that does not count, where there is none."""

    def zeros(values: Tensor) -> Tensor:
        return values.new_zeros(1, *values.shape[1:])

    inputs = {name: zeros(values) for name, values in empty.inputs.items()}
    labels = None if empty.labels is None else zeros(empty.labels)
    return Checked(inputs, labels, empty.demands, 1)


def gathered(
    model: Compiled,
    programs: Programs,
    found: Mapping[Output, Tensor],
    demands: Sequence[Demand],
    share: Share | None,
    gradient: Tensor,
) -> tuple[Evaluated, dict[str, Tensor]]:
    """Returns h of the whole batch, and the batch's statistics; its gradient is made in place.

    Args:
        model: the model.
        programs: those of which a linearization has run.
        found: its results.
        demands: what the values of this rank's part must be.
        share: this rank's share of the batch; None for all of it.
        gradient: the flat gradient of the data term here.

    Raises:
        NewtritonError: a demand is not met.
    """
    statistics = {k.statistic: x for k, x in found.items() if isinstance(k, BatchStatistic)}
    flat = [gradient]
    if share is not None and programs.traced.part == "own":  # statistics are those of each part
        statistics = {name: x * share.weight for name, x in statistics.items()}
        flat += statistics.values()
    demands, numbers = summed(model, found, demands, share, *flat)
    return completed(model, gradient, demands, numbers, statistics), statistics


def dropout_now(model: Compiled, share: Share | None) -> Drawn:
    """Returns which random numbers a batch, or a share of it, has now."""
    return model.dropout.now if share is None else model.dropout.now.behind(share.first)
