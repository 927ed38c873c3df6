"""The Hessian and the Gauss–Newton matrix of one linearization as operators, never formed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ...compiler.curvature.jacobian import no_jacobian
from ...compiler.graph.cost import flops, traffic
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_option
from ...compiler.graph.program import Program
from ...compiler.language.network import layer_of
from ...compiler.programs import MATRICES, Programs
from ..model.linearization import PRODUCTS
from ..model.linearized import Linearized
from ..model.model import check_model
from ..parts.protocols import Asking, Foreseeing, check_curvature
from ..parts.state import Attributes, Number, Spec, State, Undo, all_of, held
from ..parts.tags import Tag
from ..remaking import Remade

if TYPE_CHECKING:
    from ..model.model import Model
    from ..parts.protocols import Curvature
    from ..pieces.gathering import Asked

BLOCKS = ("whole", "layers")
BALANCE = 5  # floating-point operations that take as long as a byte of memory traffic, on CPUs
ITEMSIZE = 4
MEMORY = 1 << 30  # bytes that a stored Jacobian may take where the cost rule chooses


def cheaper_product(
    programs: Programs, batch: int, products: int, *, by_layer: bool = False, memory: int = MEMORY
) -> str:
    """Returns the form in which `products` Gauss–Newton products cost less on a batch.

    A graph costs its floating-point operations and `BALANCE` times its bytes; the stored form pays
    for its Jacobian once. It is out of the question where batch statistics mix samples, or where
    it takes more than `memory` bytes. By layer the R-operator needs a product for each.
    """
    if no_jacobian(programs.traced):
        return "r-operator"
    jacobian = programs.jacobian
    if ITEMSIZE * sum(n.type.numel(batch) for n in jacobian.outputs.values()) > memory:
        return "r-operator"

    def cost(program: Program) -> int:
        graph = program.graph
        return flops(graph, batch) + BALANCE * traffic(graph, batch, ITEMSIZE)

    layers = len(set(map(layer_of, programs.traced.trained))) if by_layer else 1
    stored = cost(jacobian) + products * cost(programs.stored_ggnvp(by_layer))
    return "stored-jacobian" if stored < products * layers * cost(programs.ggnvp) else "r-operator"


class MatrixFree(Attributes):
    """The Hessian H or the Gauss–Newton matrix JᵀBJ of the data term, as products with vectors.

    It is that of the batch of the last linearization.

    Args:
        model: the model whose curvature it is.
        kind: "ggn" or "hessian".
        blocks: "whole", or "layers" for its block diagonal, a block per layer.
        product: the form of Gauss–Newton products: "r-operator", "stored-jacobian", or "auto" for
            what the cost rule says, see `cheaper_product`.
        forecast: how many products the first linearization is expected to serve, ≥ 1.

    Attributes:
        tags: what a solver or a rule may rely on.
        products: how many products have been taken since the last linearization; the forecast for
            the next one.
        chosen: the form of the products on the last linearization.

    Raises:
        NewtritonError: an option is unknown, or a stored Jacobian is asked of the Hessian.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> curvature = nt.MatrixFree(model, "hessian")
        >>> curvature.update(model.linearize(torch.eye(3), torch.arange(3)))
        True
        >>> curvature.mv(torch.zeros_like(model.params)).norm()
        tensor(0.)
    """

    blocks = preconditioner = None

    STATE: ClassVar[tuple[str, ...]] = ("products",)

    def __init__(
        self,
        model: Model,
        kind: str = "ggn",
        *,
        blocks: str = "whole",
        product: str = "auto",
        forecast: int = 20,
    ) -> None:
        check_model(model)
        check_option("kind", kind, MATRICES)
        check_option("blocks", blocks, BLOCKS)
        check_option("product", product, ("auto", *PRODUCTS))
        if kind == "hessian" and product == "stored-jacobian":
            raise NewtritonError(
                "product is 'stored-jacobian': it gives Gauss-Newton products; use kind='ggn', or "
                "product='auto' for the Hessian"
            )
        self.model, self.kind, self.product = model, kind, product
        self.by_layer = blocks == "layers"
        self.tags = frozenset({Tag.SEMIDEFINITE} if kind == "ggn" else ())
        self.products = check_count("forecast", forecast)
        self.lin: Linearized | None = None
        self.chosen = product

    @property
    def name(self) -> str:
        """The kind of its products, "ggn" or "hessian"."""
        return self.kind

    def update(self, lin: Linearized) -> bool:
        """Moves to another linearization; that its curvature is finite shows in the products."""
        self.lin, self.chosen = lin, self._choice(lin.programs, lin.batch)
        self.products = 0
        return True

    def _choice(self, programs: Programs, batch: int) -> str:
        """Returns the form of the products on a batch."""
        if self.kind == "hessian":
            return "r-operator"
        if self.product != "auto":
            return self.product
        return cheaper_product(programs, batch, self.products, by_layer=self.by_layer)

    def programs(self, model: Model, batch: int) -> Sequence[Program]:
        """Returns the programs of the products."""
        known = model.programs[True]
        if self.kind == "hessian":
            return [known.hvp]
        if self._choice(known, batch) == "r-operator":
            return [known.ggnvp]
        return [known.jacobian, known.stored_ggnvp(self.by_layer)]

    def mv(self, v: Tensor) -> Tensor:
        """Returns C v for a flat vector, without weight decay.

        Raises:
            NewtritonError: the curvature has not been updated yet.
        """
        if self.lin is None:
            raise NewtritonError("the curvature has no linearization yet: call update(lin)")
        self.products += 1
        return self.lin.data_product(v, self.kind, self.chosen, by_layer=self.by_layer)

    def state_spec(self) -> Mapping[str, Spec]:
        """Returns the specification of the cost rule's forecast."""
        return {"products": Number(int, 0)}


class WithPreconditioner(Remade):
    """A curvature with a second one beside it, for a solver that preconditions with it.

    Args:
        curvature: the curvature whose products are wanted.
        preconditioner: blocks that are easy to solve with.

    Raises:
        NewtritonError: the preconditioner has no blocks.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> curvature = nt.WithPreconditioner(nt.MatrixFree(model), nt.KroneckerCurvature(model))
        >>> solver = nt.TruncatedCG(preconditioner=nt.KFI())
        >>> optimizer = nt.SecondOrder(model, curvature, solver, nt.LevenbergMarquardt())
        >>> optimizer.step(torch.eye(3), torch.arange(3)).accepted
        True
    """

    blocks = None

    def __init__(self, curvature: Curvature, preconditioner: Curvature) -> None:
        check_curvature("curvature", curvature)
        check_curvature("preconditioner", preconditioner)
        if Tag.BLOCKS not in preconditioner.tags:
            raise NewtritonError(
                f"{preconditioner.name!r} cannot precondition: give Kronecker factors, e.g. "
                "KroneckerCurvature(model)"
            )
        self.curvature, self.preconditioner = curvature, preconditioner
        self.model, self.name = curvature.model, curvature.name
        self.tags = curvature.tags - {Tag.BLOCKS, Tag.MEANS} | {Tag.PRECONDITIONER}

    @property
    def _parts(self) -> dict[str, Curvature]:
        return {"curvature": self.curvature, "preconditioner": self.preconditioner}

    def update(self, lin: Linearized) -> bool:
        """Updates both; returns False where either is not finite, and then has updated neither."""
        undo = held(self.curvature)
        if self.curvature.update(lin) and self.preconditioner.update(lin):
            return True
        undo()
        return False

    def asks(self) -> Asked | None:
        """Returns what the first of both that asks for factors asks for."""
        parts = [part for part in self._parts.values() if isinstance(part, Asking)]
        return next((asked for part in parts if (asked := part.asks())), None)

    def programs(self, model: Model, batch: int) -> Sequence[Program]:
        """Returns the programs of both."""
        parts = [part for part in self._parts.values() if isinstance(part, Foreseeing)]
        return [program for part in parts for program in part.programs(model, batch)]

    def mv(self, v: Tensor) -> Tensor:
        """Returns C v for a flat vector, without weight decay."""
        return self.curvature.mv(v)

    def state_spec(self) -> Mapping[str, Spec]:
        """Returns the specifications of both states."""
        return {name: part.state_spec() for name, part in self._parts.items()}

    def state_dict(self) -> State:
        """Returns the states of both."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def hold(self) -> Undo:
        """Returns what puts both back to what they are now."""
        return all_of([held(part) for part in self._parts.values()])

    def load_state_dict(self, state: State) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
