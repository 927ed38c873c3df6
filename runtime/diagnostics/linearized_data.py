"""A network linearized at one point on many batches: the means over all that counts in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from ...compiler.graph.calls import Checked, check_call
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_flag, check_kind
from ...compiler.graph.program import Output
from ...compiler.language.trees import count
from ..inputs.batches import Moved
from ..model.factors import DiagonalFactors, Factors, KroneckerFactors, MeanFactors
from ..model.linearization import Linearization, check_product
from ..model.model import Model, check_model
from ..model.moments import SampledFactors
from ..optimizers.passes import Passes, check_batches, undisturbed

OF_INPUTS = ("A", "mean")  # factors of which labels say nothing: samples alone weigh them


class LinearizedData(Checked):
    """Loss, gradient, products and factors of a network on all batches of some data.

    It stands where a `Linearization` does: in every diagnosis, and in a curvature's `update`. Each
    call passes through the data and linearizes batch by batch, so that memory is that of a batch,
    unless linearizations are kept. A batch counts by what the sum of its losses is divided by.
    What is not linear in the batches is a mean of theirs: batch norm takes the statistics of each,
    and factors of a recursion ("kfra", "pch-1", "pch-2") are means of those of the batches.

    Args:
        model: the model, whose parameters must stay as they are.
        data: any iterable of batches (x, y) that can be passed through often: `Batches`, a
            DataLoader, a list. Each pass has the order and the augmentation of the first one, and
            the data's own state is afterwards what it was.
        training: as in `Model.linearize`.
        keep: whether the linearizations of all batches are kept, which saves a forward and a
            backward pass in each call and needs the memory of all data at once. Products from a
            stored Jacobian are taken then alone; else the R-operator takes their place.

    Attributes:
        model: the model.
        programs: the programs that calls run.
        vectors: arithmetic on flat vectors.
        training: whether batches take their own statistics.
        batch: the number of samples.
        count: what the sum of the losses is divided by.
        loss: h, a scalar tensor: the mean over all that counts, and weight decay.
        objective: the same as a float.
        gradient: of h, a flat vector.

    Raises:
        NewtritonError: there are no batches, a batch does not fit the model, or the data can be
            passed through only once; by a call, parameters have changed since.

    Examples:
        >>> import newtriton as nt
        >>> train, _ = nt.digits()
        >>> model = nt.compile(nt.models.mlp((8,)), (1, 8, 8), nt.CrossEntropyLoss())
        >>> lin = nt.LinearizedData(model, nt.Batches(*train, batch_size=500))
        >>> lin.batch, nt.spectrum(lin, "ggn", k=1).converged
        (1437, True)
    """

    def __init__(
        self, model: Model, data: Iterable[Any], *, training: bool = True, keep: bool = False
    ) -> None:
        check_model(model)
        if isinstance(data, (Iterator, Tensor)):
            raise NewtritonError(
                f"the data are a {type(data).__name__}: give batches (x, y) that can be passed "
                "through often, as a list, Batches or a DataLoader"
            )
        check_batches(data)
        self.model, self.training = model, check_flag("training", training)
        check_flag("keep", keep)
        self.programs, self.vectors = model.programs[training], model.vectors
        self._data = Passes(Moved(data, model))
        self._kept: list[Linearization] | None = None
        self._watched = [*model.watched()] + ([] if training else [*model.buffers.items()])
        self._versions = [tensor._version for _, tensor in self._watched]
        counts, kept = list[float](), list[Linearization]()
        self.batch, self.objective = 0, 0.0
        self.gradient = torch.zeros_like(model.params)
        with model.dropout.undone():
            model.dropout.draw()
            self._dropout = model.dropout.state_dict()
            for lin in self._linearizations():
                counts.append(lin.count)
                self.batch += lin.batch
                self.objective += lin.count * lin.objective
                self.gradient.add_(lin.gradient, alpha=lin.count)
                kept += [lin] if keep else []
            if not counts:
                raise NewtritonError("the data have no batches: give at least one")
        self.count = sum(counts)
        self.objective /= self.count
        self.gradient /= self.count
        self.loss = torch.tensor(self.objective, dtype=model.dtype, device=model.device)
        self._kept = kept if check_flag("keep", keep) else None

    # --- passing through the data ---------------------------------------------------------------

    def _linearizations(self) -> Generator[Linearization, None, None]:
        """Yields the linearization of each batch, with what dropped out in the first pass."""
        changed = [
            name
            for (name, tensor), version in zip(self._watched, self._versions, strict=True)
            if tensor._version != version
        ]
        if self.model.programs[self.training] is not self.programs:
            changed.append("frozen parameters")
        if changed:
            raise NewtritonError(
                f"the {changed[0]} have changed since the data were linearized: linearize again"
            )
        if self._kept is not None:
            yield from self._kept
            return
        samples = 0
        with undisturbed(self._data.data):
            for x, y in self._data:
                with self._dropped_out(samples):
                    lin = self.model.linearize(x, y, self.training)
                samples += count(x)
                yield lin

    @contextmanager
    def _dropped_out(self, first: int) -> Iterator[None]:
        """Lets drop out what did in the first pass, inside a `with` statement."""
        dropout = self.model.dropout
        before = dropout.state_dict()
        dropout.load_state_dict(self._dropout)
        try:
            with dropout.kept(first):
                yield
        finally:
            dropout.load_state_dict(before)

    def mean(self, value: Callable[[Linearization], Tensor]) -> Tensor:
        """Returns the mean over all that counts of a value that each batch's linearization has.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), device="cpu")
            >>> lin = nt.LinearizedData(model, [(torch.ones(4, 2), torch.zeros(4, 1))] * 3)
            >>> torch.allclose(lin.mean(lambda one: one.gradient), lin.gradient)
            True
        """
        with closing(self._linearizations()) as passed:  # an error, too, ends the pass
            parts = (value(lin).mul(lin.count / self.count) for lin in passed)
            total = next(parts)
            for part in parts:
                total += part
        return total

    # --- products -------------------------------------------------------------------------------

    def hvp(self, v: Tensor) -> Tensor:
        """Returns H v, for H the Hessian of h; see `Linearization.hvp`."""
        return self.mean(lambda lin: lin.hvp(v))

    def ggnvp(self, v: Tensor, product: str = "r-operator") -> Tensor:
        """Returns (Jᵀ B J + λI) v; see `Linearization.ggnvp`."""
        form = self._form(product)
        return self.mean(lambda lin: lin.ggnvp(v, form))

    def data_product(
        self,
        v: Tensor,
        curvature: str = "hessian",
        product: str = "r-operator",
        *,
        by_layer: bool = False,
    ) -> Tensor:
        """Returns C v, C a matrix of the data term; see `Linearization.data_product`."""
        form = self._form(product, curvature)
        return self.mean(lambda lin: lin.data_product(v, curvature, form, by_layer=by_layer))

    def _form(self, product: str, curvature: str = "ggn") -> str:
        """Returns the form of products: a Jacobian that is not kept is not stored."""
        check_product(curvature, product)
        return product if self._kept is not None else "r-operator"

    def quadratic_forms(self, vs: Sequence[Tensor], curvature: str = "hessian") -> Tensor:
        """Returns the k×k matrix of vᵢᵀ C vⱼ; see `Linearization.quadratic_forms`."""
        return self.mean(lambda lin: lin.quadratic_forms(vs, curvature))

    def block(self, parameters: Sequence[str], curvature: str = "hessian", **memory: int) -> Tensor:
        """Returns the rows and columns that belong to parameters; see `Linearization.block`."""
        check_call(Linearization.block, (self, parameters, curvature), memory)
        return self.mean(lambda lin: lin.block(parameters, curvature, **memory))

    # --- factors --------------------------------------------------------------------------------

    def kronecker_factors(
        self,
        kind: str,
        samples: int = 1,
        generator: torch.Generator | None = None,
        means: Collection[str] = (),
        layers: Collection[str] | None = None,
        per_sample: bool = False,
        memory: dict[Output, Tensor] | None = None,
        **options: Any,
    ) -> dict[str, Factors]:
        """Returns factors by layer, see `Linearization.kronecker_factors`; `memory` stays unused.

        Those of inputs are means over samples, those of adjoints over all that counts.
        """
        given = (kind, samples, generator, means, layers, per_sample)
        check_call(Linearization.kronecker_factors, (self, *given), options)
        check_kind("memory", memory, (dict, NoneType), "a dictionary, empty at first")
        total = dict[str, Factors]()
        with closing(self._linearizations()) as passed:
            for lin in passed:
                shares = lin.batch / self.batch, lin.count / self.count
                found = lin.kronecker_factors(*given, **options)
                parts = {layer: _part(factors, *shares) for layer, factors in found.items()}
                total = {n: _sum(total[n], part) for n, part in parts.items()} if total else parts
        return total


def check_linearized(lin: object) -> None:
    """Raises an error where a value is no linearization."""
    check_kind(
        "lin", lin, (Linearization, LinearizedData),
        "model.linearize(x, y), or LinearizedData(model, data)",
    )  # fmt: skip


def _part(factors: Factors, of_samples: float, of_labels: float) -> Factors:
    """Returns what factors of a batch add to those of all data.

    Args:
        factors: the factors of a layer.
        of_samples: the share of the samples that the batch has.
        of_labels: its share of what counts.
    """
    if isinstance(factors, SampledFactors):
        pair = _part(factors.pair, of_samples, of_labels)
        scale = math.sqrt(of_samples * of_labels)  # see `normaliser.of_samples`
        return replace(factors, pair=pair, adjoints=factors.adjoints * scale)
    shares = {n: of_samples if n in OF_INPUTS else of_labels for n in factors.tensors}
    return _with(factors, {n: x * shares[n] for n, x in factors.tensors.items()})


def _sum(a: Factors, b: Factors) -> Factors:
    """Returns the sum of two parts of the same layer; samples come one after the other."""
    if isinstance(a, SampledFactors) and isinstance(b, SampledFactors):
        axis = a.adjoints.dim() - a.inputs.dim()  # copies may lead
        return replace(
            a,
            pair=_sum(a.pair, b.pair),
            inputs=torch.cat([a.inputs, b.inputs]),
            adjoints=torch.cat([a.adjoints, b.adjoints], axis),
            weight=a.weight + b.weight,
            samples=None if a.samples is None or b.samples is None else a.samples + b.samples,
        )
    return _with(a, {name: x + b.tensors[name] for name, x in a.tensors.items()})


def _with(factors: Factors, tensors: Mapping[str, Tensor]) -> Factors:
    """Returns factors of the same structure with other tensors."""
    match factors:
        case KroneckerFactors():
            return replace(factors, A_stored=tensors["A"], G=tensors["G"])
        case MeanFactors():
            return replace(factors, mean=tensors["mean"], G=tensors["G"])
        case DiagonalFactors():
            return DiagonalFactors(tensors)
    raise NewtritonError(f"{type(factors).__name__} have no mean over batches")
