"""Hessian and Gauss–Newton matrix of one linearization as linear operators, never formed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ...compiler.curvature.jacobian import no_jacobian
from ...compiler.graph.cost import flops, traffic
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_option
from ...compiler.graph.program import Program
from ...compiler.programs import MATRICES, Programs
from ..model.linearization import PRODUCTS, Linearization
from .protocols import Tag
from .state import Attributes, Number

if TYPE_CHECKING:
    from ..model.model import Model
    from .kronecker import KroneckerCurvature

BLOCKS = ("whole", "layers")
BALANCE = 5  # floating-point operations that take as long as a byte of memory traffic, on CPUs
ITEMSIZE = 4
MEMORY = 1 << 30  # bytes that a stored Jacobian may take where the cost rule chooses


def cheaper_product(
    programs: Programs, batch: int, products: int, *, by_layer: bool = False, memory: int = MEMORY
) -> str:
    """The form in which `products` Gauss–Newton products cost less on a batch.

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

    layers = len({name.rpartition(".")[0] for name in programs.traced.nodes}) if by_layer else 1
    stored = cost(jacobian) + products * cost(programs.stored_ggnvp(by_layer))
    return "stored-jacobian" if stored < products * layers * cost(programs.ggnvp) else "r-operator"


class MatrixFree(Attributes):
    """C v = H v or JᵀBJ v of the data term, on the batch of the last linearization.

    products: how many have been taken since. It is the forecast for the next linearization.

    Args:
        model: whose curvature it is.
        kind: "ggn" or "hessian".
        blocks: "whole", or "layers" for its block diagonal, a block per layer.
        product: of the Gauss–Newton matrix: "r-operator", "stored-jacobian", or "auto" for what
            the cost rule says.
        forecast: products expected of the first linearization.
    """

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
        check_option("kind", kind, MATRICES)
        check_option("blocks", blocks, BLOCKS)
        check_option("product", product, ("auto", *PRODUCTS))
        if kind == "hessian" and product == "stored-jacobian":
            raise NewtritonError(
                "product is 'stored-jacobian': it gives Gauss-Newton products; use kind='ggn', or "
                "product='auto' for the Hessian"
            )
        self.model, self.kind, self.blocks, self.product = model, kind, blocks, product
        self.tags = frozenset({Tag.SEMIDEFINITE} if kind == "ggn" else ())
        self.products = check_count("forecast", forecast)
        self.lin: Linearization | None = None
        self.chosen = product

    @property
    def name(self) -> str:
        """Its kind."""
        return self.kind

    def update(self, lin: Linearization) -> bool:
        """Moves to another linearization; whether its curvature is finite shows in the products."""
        self.lin, self.chosen = lin, self.product
        if self.kind == "hessian":
            self.chosen = "r-operator"
        elif self.product == "auto":
            self.chosen = cheaper_product(
                lin.programs, lin.batch, self.products, by_layer=self.blocks == "layers"
            )
        self.products = 0
        return True

    def mv(self, v: Tensor) -> Tensor:
        """C v, without weight decay."""
        if self.lin is None:
            raise NewtritonError("the curvature has no linearization yet: call update(lin)")
        self.products += 1
        by_layer = self.blocks == "layers"
        return self.lin.data_product(v, self.kind, self.chosen, by_layer=by_layer)

    def state_spec(self, model: Model) -> Mapping[str, Any]:
        """The forecast of the cost rule."""
        return {"products": Number(int, 0)}


class Preconditioned:
    """A curvature with Kronecker blocks beside it, for a solver that preconditions with them.

    Args:
        curvature: whose products are wanted.
        preconditioner: blocks that are easy to solve with.
    """

    def __init__(self, curvature: MatrixFree, preconditioner: KroneckerCurvature) -> None:
        if Tag.KRONECKER not in preconditioner.tags:
            raise NewtritonError(
                f"{preconditioner.name!r} cannot precondition: give Kronecker factors, e.g. "
                "KroneckerCurvature(model)"
            )
        self.curvature, self.preconditioner = curvature, preconditioner
        self.model, self.name, self.tags = curvature.model, curvature.name, curvature.tags

    def update(self, lin: Linearization) -> bool:
        """Updates both; False where either is not finite."""
        return self.curvature.update(lin) and self.preconditioner.update(lin)

    def mv(self, v: Tensor) -> Tensor:
        """C v."""
        return self.curvature.mv(v)

    def state_spec(self, model: Model) -> Mapping[str, Any]:
        """States of both."""
        parts = {"curvature": self.curvature, "preconditioner": self.preconditioner}
        return {name: part.state_spec(model) for name, part in parts.items()}

    def state_dict(self) -> dict[str, Any]:
        """States of both."""
        parts = {"curvature": self.curvature, "preconditioner": self.preconditioner}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        self.curvature.load_state_dict(state["curvature"])
        self.preconditioner.load_state_dict(state["preconditioner"])
