"""A parameter as `Model.parameters` gives it: a view that says, and sets, whether it is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .compiled import Compiled


class ParameterView(Tensor):
    """A view of `Model.params`, whose flag `requires_grad` means what it does in `torch.nn`.

    The flag is the model's: a parameter with False is frozen, see `Model.freeze`. PyTorch's own
    autograd never records what is done with it; what is computed from it is a plain tensor.

    Examples:
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), backend="aten", device="cpu")
        >>> for name, parameter in model.named_parameters():
        ...     parameter.requires_grad = name != "bias"
        >>> {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        {'weight': True, 'bias': False}
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    _model: Compiled
    _name: str

    @classmethod
    def of(cls, model: Compiled, name: str, values: Tensor) -> ParameterView:
        """Returns the view of a model's parameter."""
        view = values.as_subclass(cls)
        view._model, view._name = model, name
        return view

    @property
    def requires_grad(self) -> bool:
        """Whether the parameter is trained."""
        return self._name not in self._model.frozen

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        self._model.freeze(self._name, frozen=not flag)

    def requires_grad_(self, requires_grad: bool = True) -> ParameterView:  # type: ignore[override]
        """Freezes the parameter, or releases it."""
        self.requires_grad = requires_grad
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """Returns a plain tensor."""
        return self.detach().clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saves a plain tensor."""
        return self.as_subclass(Tensor).__reduce_ex__(protocol)
