"""A compiled network as a user calls it: outputs, losses, gradients, linearizations, state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import isroutine
from typing import Any

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.ir import Node
from ...compiler.graph.options import check_count, check_flag, check_mapping, check_members
from ...compiler.graph.program import Output, Program
from ...compiler.graph.tensors import check_tensor
from ...compiler.language.trees import Tree, count
from ...compiler.values import Gradient, Outputs, Scores
from ..backend import Planned
from ..inputs.data import Demand, check_labels, label_shape, read_checked
from ..inputs.initialise import TRACKED
from ..inputs.layout import faults, raise_faults
from ..parallel.dtensors import all_gathered, inputs_here, labels_here
from ..parallel.share import Share
from ..summary import summary
from .compiled import Compiled
from .explain import explain, factors_held, memory_of_step, shown_programs
from .linearization import Linearization
from .objective import counted, summed
from .runner import NOTHING
from .sharing import dropout_now, gathered, shared
from .view import ParameterView


class Model(Compiled):
    """A network with its loss, compiled: what `newtriton.compile` returns.

    Parameters lie in `params`, one flat tensor in the model's own layout; running statistics of
    batch norm lie in `buffers`. Both are changed in place. h is the mean loss over a batch plus
    weight_decay/2 ‖θ‖².

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
        >>> model = nt.compile(net, (5,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
        >>> model.params.shape
        torch.Size([39])
        >>> {name: tuple(p.shape) for name, p in model.named_parameters()}
        {'0.weight': (4, 5), '0.bias': (4,), '2.weight': (3, 4), '2.bias': (3,)}
    """

    # --- parameters -----------------------------------------------------------------------------

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yields names and views of `params` in PyTorch's shapes.

        Their flag `requires_grad` is the model's: `p.requires_grad_(False)` freezes.
        """
        for name, view in self.layout.torch_views(self.params).items():
            yield name, ParameterView.of(self, name, view)

    def parameters(self) -> Iterator[Tensor]:
        """Yields views of `params` in PyTorch's shapes; see `named_parameters`."""
        for _, view in self.named_parameters():
            yield view

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Returns one flat vector in the model's layout.

        Args:
            tensors: the tensors in PyTorch's shapes, one for each parameter's name.

        Raises:
            NewtritonError: lists everything that is missing, unexpected or misshapen.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
            >>> v = model.flatten({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.ones(1)})
            >>> v
            tensor([1., 2., 1.])
            >>> model.unflatten(v)["weight"]
            tensor([[1., 2.]])
        """
        return self.layout.flatten(tensors, self.params)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Returns views of a flat vector in PyTorch's shapes, by parameter name.

        Raises:
            NewtritonError: the vector has another shape than `params`.
        """
        return self.layout.torch_views(self.layout.check(vector, "the vector"))

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of parameters and running statistics under PyTorch's names and shapes."""
        by_name = {**self.layout.torch_views(self.params), **self.buffers}
        return {
            name: tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in by_name.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over all entries; where any is missing, unexpected or misshapen, none.

        Of a DTensor all parts are gathered.

        Raises:
            NewtritonError: lists every fault at once.
        """
        targets = {**self.layout.torch_views(self.params), **self.buffers}
        state = all_gathered(check_mapping("the entries", state))
        raise_faults("load_state_dict", faults(targets, state))
        for name, target in targets.items():
            target.copy_(state[name].detach())
        self.publish()

    def publish(self) -> None:
        """Gives the parameters as they are now to whoever has copies; a compiled model has none.

        Optimizers and `load_state_dict` do so after each change.
        """

    def update_statistics(self, batch: Mapping[str, Tensor]) -> None:
        """Moves the running statistics towards a batch's, once per accepted step."""
        if not batch:
            return
        for layer, momentum in self.programs[True].traced.momenta.items():
            count = self.buffers[f"{layer}.{TRACKED}"].add_(1)
            weight = (1.0 / count.double()).to(self.dtype) if momentum is None else momentum
            for name in (f"{layer}.running_mean", f"{layer}.running_var"):
                self.buffers[name].lerp_(batch[name], weight)

    # --- values ---------------------------------------------------------------------------------

    def __call__(self, x: Tree) -> Tensor:
        """Returns the outputs, N×K or N×…; batch norm takes its running statistics.

        Raises:
            NewtritonError: x has another shape, dtype or device than the model, or values that
                are not finite.
        """
        found, demands, _ = self._evaluate(x, None, training=False)
        read_checked(demands)
        return found[Outputs()]

    def classes(self, x: Tree) -> Tensor:
        """Returns the most probable class of each row of outputs, int64 (N,) or (N, …).

        One output decides between 0 and 1, or between the two labels that the loss has.
        """
        programs = self.programs[False]
        traced = programs.traced
        inputs, _, demands, batch = self.check(traced, x, None)
        scores = self.runner.run(programs.scores, batch, self.feed(inputs))[Scores()]
        read_checked(demands)
        found = scores.argmax(1).reshape(label_shape(traced, batch))
        if traced.rows.shape[-1] > 1 or self.criterion.values is None:
            return found
        return found.new_tensor(self.criterion.values)[found]

    def loss(self, x: Tree, y: Tensor) -> Tensor:
        """Returns h, a scalar: mean loss and weight decay; batch norm takes running statistics.

        Raises:
            NewtritonError: data or labels are not what the network and its loss take.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
            >>> _ = model.params.zero_()
            >>> model.loss(torch.ones(4, 2), torch.full((4, 1), 3.0))
            tensor(9.)
        """
        found, demands, share = self._evaluate(x, labels_here(y, self.parallel), training=False)
        demands, (total, *_) = summed(self, found, demands, share)
        read_checked(demands)
        return total.to(self.dtype)

    def objective(self, x: Tree, y: Tensor, training: bool = True) -> float:
        """Returns h, summed in float64; nothing is changed.

        If `training`, batch norm takes batch statistics, and elements drop out as they did in the
        last linearization or gradient.
        """
        training = check_flag("training", training)
        found, demands, share = self._evaluate(x, labels_here(y, self.parallel), training)
        demands, (total, *_) = summed(self, found, demands, share)
        return float(read_checked(demands, total)[0])

    def _evaluate(
        self, x: Tree, y: Tensor | None, training: bool
    ) -> tuple[dict[Output, Tensor], list[Demand], Share | None]:
        """Returns outputs, and losses where there are labels, with what the data must be."""
        programs = self.programs[training]
        program = programs.outputs if y is None else programs.evaluate

        def fits(batch: int) -> None:
            self.runner.fit(program, batch, program.inputs.values())

        checked, share, numbers = shared(self, programs.traced, x, y, fits=fits)
        inputs, labels, demands, batch = checked
        feed = self.feed(inputs, labels) | numbers
        if training:
            feed |= self.dropout(self.runner.context(batch), dropout_now(self, share))
        return self.runner.run(program, batch, feed, share=share), demands, share

    # --- what batches count ---------------------------------------------------------------------

    def count(self, y: Tensor) -> float | Tensor:
        """Returns what weighs a batch in a mean of h over batches, by its labels.

        It is what the sum of its losses is divided by: a scalar on the model's device where labels
        decide that, or where ranks have parts of the batch.
        """
        y, here = labels_here(y, self.parallel), 0.0
        if len(y):
            traced = self.programs[True].traced
            labels, _ = check_labels(traced, y, len(y), self.dtype, self.device)
            here = counted(self, labels, len(y))
        if self.parallel is None:
            return here
        number = torch.zeros((), dtype=torch.float64, device=self.device).add_(here)
        return self.ranks.all_sum(number)

    def samples(self, x: Tree) -> int:
        """Returns how many samples a batch has, with those that other ranks have."""
        here = count(inputs_here(x, self.parallel))
        if self.parallel is None:
            return here
        return int(self.ranks.all_sum(torch.tensor(here, device=self.device)))

    def counts(self, y: Tensor) -> Tensor:
        """Returns which int labels count."""
        ignored = self.criterion.ignored(self.programs[True].traced.z)
        return torch.ones_like(y, dtype=torch.bool) if ignored is None else y != ignored

    # --- derivatives ----------------------------------------------------------------------------

    def gradient(self, x: Tree, y: Tensor) -> tuple[float, Tensor, dict[str, Tensor]]:
        """Returns h, its flat gradient and the batch's statistics; no tape is kept."""
        programs = self.programs[True]
        traced, program = programs.traced, programs.linearize

        def fits(batch: int) -> None:
            self.runner.fit(program, batch, program.inputs.values())

        (inputs, labels, demands, batch), share, numbers = shared(self, traced, x, y, True, fits)
        gradient, out = self.layout.target(Gradient, program.outputs, self.params)
        with self.ranks.told(), self.dropout.undone():
            self.dropout.draw()
            feed = self.feed(inputs, labels) | numbers
            feed |= self.dropout(self.runner.context(batch), dropout_now(self, share))
            found = self.runner.run(program, batch, feed, out=out, share=share)
            h, statistics = gathered(self, programs, found, demands, share, gradient)
        return h.objective, gradient, statistics

    def linearize(
        self,
        x: Tree,
        y: Tensor,
        training: bool = True,
        ahead: Callable[[int], Sequence[Program]] | None = None,
        order: Tensor | None = None,
    ) -> Linearization[Model]:
        """Runs forward and backward once at `params`, and keeps what second-order calls need.

        Args:
            x: the inputs, N×C×H×W or N×D; a tuple or a dictionary where there are several.
            y: the labels.
            training: whether batch norm takes batch statistics, with derivatives through them, or
                running ones, and whether elements drop out.
            ahead: gives the programs that will be called next, by the batch size; where kernels
                are compiled, theirs are compiled with those of this call.
            order: where this rank's samples stand in the whole batch, int64, which labels that are
                drawn go by; the ranks' parts follow each other unless given.

        Raises:
            NewtritonError: data or labels are not what the network and its loss take.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
            >>> _ = model.params.zero_()
            >>> lin = model.linearize(torch.ones(4, 2), torch.full((4, 1), 3.0))
            >>> lin.loss, lin.gradient
            (tensor(9.), tensor([-6., -6., -6.]))
        """
        programs = self.programs[check_flag("training", training)]
        if not (ahead is None or isroutine(ahead) or isinstance(ahead, partial)):
            raise NewtritonError(f"ahead is {quoted(ahead)}: give a function of the batch size")
        _check_order(order, x)
        with self.ranks.told(), self.dropout.undone():
            given = None if ahead is None else partial(_programs, ahead)
            return Linearization(self, programs, x, y, training, given, order)

    # --- in words -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """Returns what the model is, in a phrase."""
        return f"<{type(self).__name__} of {self.layout.numel:,} parameters on {self.device}>"

    def __str__(self) -> str:
        """Returns network, loss, options and the parameters of each layer, a screen at most."""
        views, frozen = self.layout.torch_views(self.params), self.frozen
        sizes = {n: view.numel() for n, view in views.items()}
        shapes = {n: "×".join(map(str, view.shape)) for n, view in views.items()}

        def row(layer: str, names: list[str]) -> tuple[str, str, str, str]:
            listed = ", ".join(f"{n.rpartition('.')[2]} {shapes[n]}" for n in names)
            held = [n.rpartition(".")[2] for n in names if n in frozen]
            count = f"{sum(sizes[n] for n in names):,}"
            return layer or "(network)", listed, count, ", ".join(held)

        total, held = self.layout.numel, sum(sizes[n] for n in frozen)
        statistics = sum(values.numel() for values in self.buffers.values())
        rows = [row(layer, names) for layer, names in self.layout.layers.items()]
        backend = type(self.backend).__name__.removesuffix("Backend").lower()
        return summary(
            f"{type(self).__name__} of {total:,} parameters, {held:,} of them frozen",
            {
                "network": self.net,
                "input": self.input_shape,
                "loss": self.criterion,
                "where": f"{self.device}, backend {backend}",
                "numbers": f"{self.dtype}, precision {self.backend.precision}",
                "weight decay": self.weight_decay,
                "running statistics": f"{statistics:,} numbers",
                "memory": f"{total * self.dtype.itemsize / 1e6:.3g} MB of parameters",
            },
            [("layer", "parameters", "count", "frozen"), *rows],
        )

    # --- what it costs --------------------------------------------------------------------------

    def explain(self, batch: int = 64, kernels: bool = False) -> str:
        """Returns a table: per program ops, units of work, FLOPs and bytes at a batch size.

        On fused kernels it also has how many there are, their launches, bytes and arena. Below it
        stands how much memory a step's values take, beside what is free; of ranks, also how much
        factors take on this one.

        Args:
            batch: the batch size.
            kernels: whether each program's schedule and source follow.
        """
        programs, batch = self.programs[True], check_count("batch", batch)
        check_flag("kernels", kernels)

        def plan(program: Program, made: Sequence[Node]) -> Planned | None:
            keep = programs.tape if program is programs.linearize else NOTHING
            return self.runner.executor(program, keep).plan(batch, made)

        two = self.two_products(batch)
        table = explain(programs, batch, self.dtype.itemsize, plan, kernels, two)
        shown = shown_programs(programs, two)[0]
        lines = [table, memory_of_step(self.runner, programs, shown, batch)]
        if self.parallel is not None and programs.kinds:
            held = self.ranks, self.parallel.rows, self.dtype.itemsize
            lines.append(factors_held(programs, self.known_blocks, *held))
        return "\n".join(lines)


def check_model(model: Any) -> Model:
    """Returns a model, or what stands for one.

    Raises:
        NewtritonError: it is something else.
    """
    made = "what newtriton.compile or newtriton.from_torch gave"
    return check_members("model", model, ("layout", "weight_decay"), made)


def _check_order(order: object, x: Tree) -> None:
    """Raises an error where an order is none of a batch."""
    if order is None:
        return
    order = check_tensor("the places in order", order)
    if order.dtype != torch.int64 or order.shape != (count(x),):
        raise NewtritonError(
            f"order is {order.dtype} of shape {tuple(order.shape)}: give a place in the whole "
            "batch, int64, for each sample"
        )


def _programs(ahead: Callable[[int], Sequence[Program]], batch: int) -> Sequence[Program]:
    """Returns what `ahead` gives for a batch size, programs."""
    found = ahead(batch)
    if isinstance(found, (list, tuple)) and all(isinstance(each, Program) for each in found):
        return found
    raise NewtritonError(f"ahead gave {quoted(found)}: give a list of programs")
