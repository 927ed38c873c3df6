"""What curvatures and diagnoses need of a linearization, of one batch or of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from ...compiler.programs import Programs
from .factors import Factors

if TYPE_CHECKING:
    from ..vectors import Vectors
    from .model import Model


class Linearized(Protocol):
    """A network linearized at one point: a `Linearization` on a batch, `LinearizedData` on many.

    h is the mean loss over all that counts, plus λ/2 ‖θ‖². `Linearization` documents the calls.
    """

    @property
    def model(self) -> Model:
        """The model whose linearization it is."""
        ...

    @property
    def programs(self) -> Programs:
        """The programs that calls run."""
        ...

    @property
    def vectors(self) -> Vectors:
        """Arithmetic on flat vectors."""
        ...

    @property
    def batch(self) -> int:
        """The number of samples."""
        ...

    @property
    def count(self) -> float:
        """What the sum of the losses is divided by."""
        ...

    @property
    def objective(self) -> float:
        """The value of h."""
        ...

    @property
    def gradient(self) -> Tensor:
        """The gradient of h, a flat vector."""
        ...

    def mean(self, value: Callable[[Linearized], Tensor]) -> Tensor:
        """Returns the mean over all that counts of a value that each batch's linearization has."""
        ...

    def hvp(self, v: Tensor) -> Tensor:
        """Returns H v, for H the Hessian of h."""
        ...

    def ggnvp(self, v: Tensor, product: str = "r-operator") -> Tensor:
        """Returns (Jᵀ B J + λI) v."""
        ...

    def data_product(
        self,
        v: Tensor,
        curvature: str = "hessian",
        product: str = "r-operator",
        *,
        by_layer: bool = False,
    ) -> Tensor:
        """Returns C v, C a matrix of the data term."""
        ...

    def quadratic_forms(self, vs: Sequence[Tensor], curvature: str = "hessian") -> Tensor:
        """Returns the k×k matrix of vᵢᵀ C vⱼ, C a matrix of h."""
        ...

    def block(self, parameters: Sequence[str], curvature: str = "hessian") -> Tensor:
        """Returns the rows and columns of a matrix of the data term that belong to parameters."""
        ...

    @property
    def kronecker_factors(self) -> Callable[..., dict[str, Factors]]:
        """Returns curvature factors of the data term, by layer, when it is called."""
        ...
