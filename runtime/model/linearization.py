"""A network linearized at one point on one batch: loss, gradient, second-order calls on a tape."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from types import NoneType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...compiler.curvature.adjoints import MAX_COPIES, Noise
from ...compiler.curvature.blocks import MAX_FACTOR
from ...compiler.curvature.factors import Wanted
from ...compiler.curvature.jacobian import Basis
from ...compiler.graph.errors import MissingRule, NewtritonError, quoted
from ...compiler.graph.ir import concrete, per_sample
from ...compiler.graph.options import check_count, check_flag, check_kind, check_names, check_option
from ...compiler.graph.program import Input, Output, Program
from ...compiler.language.trees import Tree, mapped, named
from ...compiler.programs import MATRICES, Programs
from ...compiler.values import (
    Columns,
    Direction,
    Form,
    Ggnvp,
    Gradient,
    Hvp,
    Outputs,
)
from ..inputs.data import check_device
from ..inputs.watch import Watch, own
from ..parallel.owners import Owners
from ..reading import read
from .compiled import Compiled
from .factors import Factors
from .objective import counted, decay_
from .sharing import dropout_now, gathered, shared
from .statistics import factors_of
from .wanted import GRAMS, check_wanted, described, drawn, own_samples, sum_statistics

SMALL = 1e-5  # of a loss: changes below it are compared with rounding
PRODUCTS = ("r-operator", "stored-jacobian")
MEMORY = 1 << 24  # bytes of a value of the network for all columns that go together

M = TypeVar("M", bound=Compiled)  # the class of the model, `Model` for all that users see


class Linearization(Generic[M]):
    """Forward and backward, once; later calls start from the tape that is kept here.

    h is the mean loss over the batch plus λ/2 ‖θ‖². Every call raises a `NewtritonError` if
    parameters, inputs or labels have been changed in place since the linearization was made, and
    so does the first one that needs a derivative for which the compiler has no rule.

    Attributes:
        model: whose linearization it is.
        programs: the programs that calls run.
        training: whether it took batch statistics.
        batch: the number of samples N.
        count: what the sum of the losses is divided by: N, of sequences N·T, or as labels count.
        vectors: arithmetic on flat vectors.
        loss: h, a scalar tensor.
        objective: the same as a float, summed in float64.
        outputs: the network's, N×K or N×….
        gradient: of h, a flat vector.
        statistics: the batch's, for `Model.update_statistics`.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
        >>> _ = model.params.zero_()
        >>> lin = model.linearize(torch.ones(4, 2), torch.full((4, 1), 3.0))
        >>> lin.objective, lin.outputs.shape, lin.gradient
        (9.0, torch.Size([4, 1]), tensor([-6., -6., -6.]))
    """

    _together: int | None = None  # samples that are looked at together; None for all

    def __init__(
        self,
        model: M,
        programs: Programs,
        x: Tree,
        y: Tensor,
        training: bool,
        ahead: Callable[[int], Sequence[Program]] | None = None,
        order: Tensor | None = None,
    ) -> None:
        traced, program = programs.traced, programs.linearize
        x, y = mapped(own, x), own(y)
        runner, tape, others = model.runner, programs.tape, list[Program]()

        def fits(batch: int) -> None:
            others.extend([] if ahead is None else ahead(batch))
            runner.fit(program, batch, program.inputs.values(), tape)

        given = traced, x, y, True, fits, order
        (inputs, labels, demands, batch), share, numbers = shared(model, *given)
        if others and model.backend.compiles:
            runner.compile_ahead(programs, [program, *others], batch)
        self.model, self.programs, self.training = model, programs, training
        self.batch, self.vectors = batch if share is None else share.samples, model.vectors
        self._here, self._share = batch, share
        self._ranks = model.ranks if share is None else share.ranks
        self._most = batch if share is None else share.most  # which all ranks decide by
        self._watch = Watch(watched(model, x, y, training))
        assert labels is not None
        self._labels, self._given = labels, model.feed(inputs, labels) | numbers
        if training:
            model.dropout.draw()
            self._given |= model.dropout(runner.context(batch), dropout_now(model, share))
        self.gradient, out = model.layout.target(Gradient, program.outputs, model.params)
        values = runner.executor(program, tape)(
            runner.context(batch, share),
            program.feed(self._given),
            {program.names[key]: view for key, view in out.items()},
        )
        found = program.results(values)
        results = set(program.outputs.values()) - tape
        self._tape = {node: x for node, x in values.items() if node not in results}
        h, self.statistics = gathered(model, programs, found, demands, share, self.gradient)
        self.loss, self.objective = h.loss, h.objective
        self.outputs = found[Outputs()].clone()  # the tape has them too
        if share is not None:
            self.outputs, self.count = self.outputs[: share.here], share.normaliser
        else:
            self.count = float(counted(model, labels, batch) if h.counted is None else h.counted)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Raises an error: programs and their tape are of this model."""
        raise NewtritonError(
            "a linearization is not copied or pickled: copy the model, and linearize there"
        )

    def hides(self, change: float) -> bool:
        """Whether rounding, of both losses, may be all of a change of `objective`.

        One transfer where the change is small beside the loss and what the loss is at 0 and 1.
        """
        rounding, share = self.model.loss_rounding, self._share
        if change > SMALL * max(rounding.scale, abs(self.objective)):
            return False
        if share is None:
            bound = rounding(self.outputs, self._labels, self._together)
        else:
            own_part = torch.zeros((), dtype=torch.float64, device=self.model.device)
            if share.counted:
                own_part = rounding(self.outputs, self._labels, self._together) * share.mean_weight
            bound = share.ranks.all_sum(own_part)
        return change <= 2.0 * float(read(bound)[0])

    def mean(self, value: Callable[[Linearization[M]], Tensor]) -> Tensor:
        """Returns a value of this linearization, as if of data that have one batch."""
        return value(self)

    # --- running programs on the tape -----------------------------------------------------------

    def _run(
        self,
        program: Program,
        given: Mapping[Input, Tensor] | None = None,
        out: Mapping[Output, Tensor] | None = None,
    ) -> dict[Output, Tensor]:
        """A program's outputs, from the tape and from what the call gives."""
        self._check_fresh()
        columns = columns_of(program, self._here, self.model.device)
        inputs = {**self._given, **columns, **(given or {})}
        return self.model.runner.run(program, self._here, inputs, self._tape, out, self._share)

    def _check_fresh(self) -> None:
        """Raises an error where something has changed in place since."""
        changed = self._watch.changed()
        if not self.model.is_current(self.programs):
            changed.append("frozen parameters")
        if changed:
            raise NewtritonError(
                f"the {changed[0]} have changed since this linearization was made: linearize again"
            )

    def _directions(self, vs: Sequence[Tensor]) -> dict[Input, Tensor]:
        """Flat vectors as directions, by parameter."""
        views = self.model.layout.views
        return {Direction(i, name): x for i, v in enumerate(vs) for name, x in views(v).items()}

    def _vector(self, v: Tensor) -> Tensor:
        """The vector itself, or an error where its shape or dtype is not that of the parameters."""
        v = self.model.layout.check(v, "v")
        check_device("v is", v, self.model.device)
        if v.dtype != self.model.dtype:
            raise NewtritonError(
                f"v is {v.dtype}, the model computes in {self.model.dtype}: use v.to(model.dtype)"
            )
        return v.detach()

    # --- products -------------------------------------------------------------------------------

    def hvp(self, v: Tensor) -> Tensor:
        """Returns H v, for H the Hessian of h: R-forward and R-backward on the tape.

        Args:
            v: a flat vector.

        Raises:
            NewtritonError: v has another shape or dtype than `model.params`.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
            >>> lin = model.linearize(torch.ones(4, 2), torch.zeros(4, 1))
            >>> lin.hvp(torch.tensor([1.0, 0.0, 0.0]))
            tensor([2., 2., 2.])
        """
        return decay_(self.model, self.data_product(v), v)

    def ggnvp(self, v: Tensor, product: str = "r-operator") -> Tensor:
        """Returns (Jᵀ B J + λI) v, the generalized Gauss–Newton matrix of h times a vector.

        Args:
            v: a flat vector.
            product: "r-operator", a forward and a backward pass; "stored-jacobian", from ∂z/∂s of
                all samples, made on first use and kept here (Wang, Tan & Lin 2020, section 3.4).

        Raises:
            NewtritonError: v has another shape or dtype than `model.params`, the loss has no such
                matrix, or, for "stored-jacobian", batch statistics mix the samples.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
            >>> lin = model.linearize(torch.ones(4, 2), torch.zeros(4, 1))
            >>> lin.ggnvp(torch.tensor([0.0, 0.0, 1.0]), "stored-jacobian")
            tensor([2., 2., 2.])
        """
        return decay_(self.model, self.data_product(v, "ggn", product), v)

    def block_ggnvp(self, v: Tensor) -> Tensor:
        """Returns (blockdiag(J_lᵀ B J_l) + λI) v, a block per layer, from the stored Jacobian."""
        product = self.data_product(v, "ggn", "stored-jacobian", by_layer=True)
        return decay_(self.model, product, v)

    def data_product(
        self,
        v: Tensor,
        curvature: str = "hessian",
        product: str = "r-operator",
        *,
        by_layer: bool = False,
    ) -> Tensor:
        """Returns C v, C a matrix of the data term: no weight decay is added.

        Args:
            v: a flat vector.
            curvature: "hessian" or "ggn".
            product: as in `ggnvp`; the Hessian has "r-operator" alone.
            by_layer: whether C is the block diagonal, a block per layer; the R-operator runs once
                for each.

        Raises:
            NewtritonError: an option is unknown, or as `hvp` and `ggnvp` raise it.
        """
        check_product(curvature, product)
        check_flag("by_layer", by_layer)
        v = self._vector(v)
        if product == "stored-jacobian":
            return self._product(Ggnvp, self.programs.stored_ggnvp(by_layer), v, self.jacobian)
        key = Hvp if curvature == "hessian" else Ggnvp
        program = self.programs.hvp if curvature == "hessian" else self.programs.ggnvp
        return self._by_layer(key, program, v) if by_layer else self._product(key, program, v)

    def _product(
        self,
        key: Callable[[str], Output],
        program: Program,
        v: Tensor,
        given: Mapping[Input, Tensor] | None = None,
    ) -> Tensor:
        """A program's flat result in the direction v; `key` is the class of its outputs."""
        flat, out = self.model.layout.target(key, program.outputs, self.model.params)
        self._run(program, {**self._directions([v]), **(given or {})}, out)
        self._ranks.sum_(flat)
        return flat

    def _by_layer(self, key: Callable[[str], Output], program: Program, v: Tensor) -> Tensor:
        """Σ_l P_l C P_l v: a product per layer, all other layers' part of v being zero."""
        result = torch.zeros_like(v)
        source, target = self.model.layout.views(v), self.model.layout.views(result)
        for names in self.model.layers.values():
            alone = torch.zeros_like(v)
            for name in names:
                self.model.layout.views(alone)[name].copy_(source[name])
            product = self.model.layout.views(self._product(key, program, alone))
            for name in names:
                target[name].copy_(product[name])
        return result

    def block(
        self, parameters: Sequence[str], curvature: str = "hessian", *, memory: int = MEMORY
    ) -> Tensor:
        """Returns the rows and columns of a matrix of the data term that belong to parameters.

        Only the network above these is worked through, for many columns at once unless one of its
        ops cannot take them so.

        Args:
            parameters: names of trained parameters, in the order of the rows.
            curvature: "hessian" or "ggn".
            memory: the most bytes of a value of the network for the columns of a pass.

        Raises:
            NewtritonError: a name is of no trained parameter, or the loss has no such matrix.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
            >>> lin = model.linearize(torch.ones(4, 2), torch.zeros(4, 1))
            >>> lin.block(["weight"])
            tensor([[2., 2.],
                    [2., 2.]])
        """
        check_option("curvature", curvature, MATRICES)
        check_count("memory", memory)
        names, trained = check_names("parameters", parameters), self.programs.traced.trained
        if not names or len(set(names)) < len(names):
            raise NewtritonError(f"parameters is {quoted(names)}: give some, each of them once")
        for name in names:
            check_option("a parameter", name, tuple(trained))
        views = self.model.layout.views(self.model.params)
        shapes = {name: views[name].shape for name in names}
        sizes = [shape.numel() for shape in shapes.values()]
        key = Hvp if curvature == "hessian" else Ggnvp
        program, count = self._columns_program(names, curvature, sum(sizes), memory)
        lead, rows = (() if count is None else (count,)), count or 1
        units = torch.eye(sum(sizes), dtype=self.model.dtype, device=self.model.device)
        units = pad(units, (0, 0, 0, -len(units) % rows))
        result = torch.zeros_like(units)
        for chunk, found in zip(units.split(rows), result.split(rows), strict=True):
            given = dict(zip(names, chunk.split_with_sizes(sizes, 1), strict=True))
            directions: dict[Input, Tensor] = {
                Direction(0, name): given[name].reshape(*lead, *shape)
                for name, shape in shapes.items()
            }
            products = self._run(program, directions)
            for name, part in zip(names, found.split_with_sizes(sizes, 1), strict=True):
                if key(name) in products:
                    part.copy_(products[key(name)].reshape(part.shape))
        self._ranks.sum_(result)
        return result[: sum(sizes)]

    def _columns_program(
        self, names: tuple[str, ...], curvature: str, columns: int, memory: int
    ) -> tuple[Program, int | None]:
        """Returns the program of columns, and how many it takes at once; None for one alone."""
        single = self.programs.columns(names, curvature)
        largest = max((n.type.numel(self._most) for n in single.graph.computed()), default=1)
        count = min(columns, memory // (largest * self.model.params.itemsize))
        if count <= 1:
            return single, None
        try:
            return self.programs.columns(names, curvature, count), count
        except MissingRule:
            return single, None

    @cached_property
    def jacobian(self) -> dict[Input, Tensor]:
        """Every `Jacobian`, ∂z/∂s at each node s that takes parameters: N×K×(elements of s).

        K backward passes give them at once.
        """
        z = self.programs.traced.z.shape
        outputs = per_sample(z)
        basis = torch.eye(outputs, dtype=self.model.dtype, device=self.model.device)
        basis = basis.unsqueeze(1).expand(outputs, self._here, outputs)
        basis = basis.reshape(outputs, *concrete(z, self._here))
        found = self._run(self.programs.jacobian, {Basis(): basis})
        return {key: x for key, x in found.items() if isinstance(key, Input)}

    def quadratic_forms(
        self, vs: Sequence[Tensor], curvature: str = "hessian", *, two_products: bool | None = None
    ) -> Tensor:
        """Returns the k×k matrix of vᵢᵀ C vⱼ, for C a matrix of h, without an R-backward pass.

        Args:
            vs: k flat vectors.
            curvature: "hessian" or "ggn".
            two_products: two contractions a layer instead of three (see `derivatives.quadratic`);
                by default the model's choice, see `Model.two_products`.

        Raises:
            NewtritonError: there is no vector, one has another shape or dtype than `model.params`,
                or the loss has no such matrix.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
            >>> lin = model.linearize(torch.ones(4, 2), torch.zeros(4, 1))
            >>> lin.quadratic_forms([torch.ones(3), torch.tensor([1.0, -1.0, 0.0])])
            tensor([[18.,  0.],
                    [ 0.,  0.]])
        """
        check_option("curvature", curvature, MATRICES)
        given = [vs] if isinstance(vs, Tensor) else vs
        if not isinstance(given, (tuple, list)) or not given:
            raise NewtritonError(f"vs is {quoted(vs)}, no vectors: give a list of at least one")
        vs = [self._vector(v) for v in given]
        if two_products is None:
            two_products = self.model.two_products(self._most)
        two = check_flag("two_products", two_products)
        found = self._run(self.programs.quadratic(len(vs), curvature, two), self._directions(vs))
        return self._matrix(found, vs)

    def _matrix(
        self, found: Mapping[Output, Tensor], vs: Sequence[Tensor], first: int = 0
    ) -> Tensor:
        """The k×k matrix of the forms of directions that are numbered from `first`."""
        places = range(first, first + len(vs))
        result = torch.stack([found[Form(min(i, j), max(i, j))] for i in places for j in places])
        result = self._ranks.all_sum(result.view(len(vs), len(vs)))
        if self.model.weight_decay:
            for run in self.model.trained:
                products = torch.stack([torch.dot(v[run], w[run]) for v in vs for w in vs])
                result.add_(products.view_as(result), alpha=self.model.weight_decay)
        return result

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
        *,
        sharing: str = "expand",
        max_factor: int = MAX_FACTOR,
        max_copies: int = MAX_COPIES,
        pos_eig: float | None = None,
        owners: Owners | None = None,
    ) -> dict[str, Factors]:
        """Returns curvature factors of the data term, by layer.

        A pair stands for the block A ⊗ G, A = 1/(N·T) Σ āāᵀ and G = 1/N Σ ggᵀ over N samples and
        T positions, see `compiler.curvature.factors`. A layer with several blocks has each under
        the name of its weights, diagonal ones under that of their first parameter.

        Args:
            kind: "kfac", labels drawn from the model's own distribution; "empirical", the true
                ones; "kflr", a root of B, one backward copy per column; "kfra", "pch-1", "pch-2".
            samples: draws per input of "kfac"; G is their mean.
            generator: of the random numbers; the global one unless given.
            means: layers of which the mean input is kept and A is not formed.
            layers: the layers whose factors are wanted; None for all.
            per_sample: whether pairs bring their samples, as `SampledFactors`: of "kfac",
                "empirical" and "kflr".
            memory: where large factors of the last call with it lie, which are written over;
                empty before the first one.
            sharing: what becomes of a layer's positions, see Eschenhagen et al. 2023: "expand"
                takes each by itself, which is exact for deep linear networks with a loss at each;
                "reduce" first their mean input and the sum of their gradients, with one loss after
                a mean over positions.
            max_factor: the most rows of a factor; of a larger one the diagonal is kept.
            max_copies: the most backward copies of "kflr", an output of a sample each.
            pos_eig: the γ ≤ 0 of Pos-Eig in "pch-1" and "pch-2", which multiplies negative
                eigenvalues (Chen, Chou & Chang 2018, eq. 8); None for −1 and 0.
            owners: the ranks that alone get the factors of a layer; None for all.

        Raises:
            NewtritonError: the kind is unknown, the loss does not have it, it has nothing per
                sample, or it takes too many copies.
            MissingRule: the network has a layer without factors of this kind.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
            >>> lin = model.linearize(torch.ones(4, 2), torch.zeros(4, 1))
            >>> pair = lin.kronecker_factors("kflr")[""]
            >>> pair.A.shape, pair.G.shape
            (torch.Size([3, 3]), torch.Size([1, 1]))
        """
        wanted = check_wanted(
            self.model.layout, kind, samples, means, layers, per_sample, sharing=sharing,
            max_factor=max_factor, max_copies=max_copies, pos_eig=pos_eig,
        )  # fmt: skip
        check_kind("generator", generator, (torch.Generator, NoneType), "a torch.Generator")
        check_kind("memory", memory, (dict, NoneType), "a dictionary, empty at first")
        check_kind("owners", owners, (Owners, NoneType), "a curvature's owners")
        return self._factors(wanted, generator, memory, owners)

    def _factors(
        self,
        wanted: Wanted,
        generator: torch.Generator | None,
        memory: dict[Output, Tensor] | None,
        owners: Owners | None,
    ) -> dict[str, Factors]:
        """Returns the factors that are wanted, of layers that this rank holds."""
        program, noise = self.programs.statistics(wanted), dict[Input, Tensor]()
        if (node := program.inputs.get(Noise())) is not None:
            found = drawn(self.model, node, self.batch, generator)
            noise[Noise()] = own_samples(node, found, self._share)
        found = self._run(program, noise, memory)
        sum_statistics(self.model, self.programs, program, found, self._ranks, owners)
        if memory is not None:
            memory.update((k, found[k]) for k, n in program.outputs.items() if n.op in GRAMS)
        weight = wanted.weight(self.batch)
        blocks = described(self.model, wanted)
        if owners is not None:
            blocks = [block for block in blocks if owners.hold(block.names)]
        return factors_of(blocks, found, weight, self._ranks, self.batch)


def check_product(curvature: str, product: str) -> None:
    """Checks of which matrix products are, and the form in which they are taken."""
    check_option("curvature", curvature, MATRICES)
    check_option("product", product, PRODUCTS if curvature == "ggn" else PRODUCTS[:1])


def watched(model: Compiled, x: Tree, y: Tensor, training: bool) -> Iterator[tuple[str, Tensor]]:
    """Yields what makes a linearization on a batch stale when it is changed in place."""
    yield from model.watched()
    yield "labels", y
    yield from (("inputs", values) for values in named(x).values())
    yield from () if training else model.buffers.items()


def columns_of(program: Program, batch: int, device: torch.device) -> dict[Input, Tensor]:
    """Returns the numbers of the outputs, where a program reads them."""
    node = program.inputs.get(Columns())
    if node is None:
        return {}
    columns = torch.arange(node.shape[0], device=device)
    return {Columns(): columns[:, None].expand(concrete(node.shape, batch))}
