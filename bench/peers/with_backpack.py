"""BackPACK's side: extensions of a backward pass, and products by double backward."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from ..second_order import mean_loss, with_math
from .problem import Call, Named, Problem, named

NAME = "BackPACK"
APART = "weights and biases are apart: A lacks the 1"
SUMMED = f"{APART}; of a convolution A is a sum over positions, and G of adjoints summed over them"


def calls(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields the calls: Gauss–Newton and Hessian products of its `hessianfree`, K-FAC's factors."""
    from backpack import backpack, extend, extensions  # noqa: PLC0415 (only where it is installed)
    from backpack.core.derivatives.crossentropyloss import (  # noqa: PLC0415
        CrossEntropyLossDerivatives,
    )
    from backpack.hessianfree.ggnvp import ggn_vector_product  # noqa: PLC0415
    from backpack.hessianfree.hvp import hessian_vector_product  # noqa: PLC0415

    warnings.filterwarnings("ignore", "Full backward hook is firing")  # inputs have no gradient
    net = problem.copy()
    v = list(problem.v.values())

    def loss(module: nn.Module) -> tuple[Any, Any]:
        z = module(problem.x)
        return mean_loss(z, problem.y), z

    def hvp() -> Named:
        return named(problem, hessian_vector_product(loss(net)[0], list(net.parameters()), v))

    def ggnvp() -> Named:
        return named(problem, ggn_vector_product(*loss(net), net, v))

    @cache
    def extended() -> tuple[nn.Module, nn.Module]:
        return extend(problem.copy()), extend(nn.CrossEntropyLoss())

    def factors() -> nn.Module:
        module, criterion = extended()
        module.zero_grad()
        with backpack(extensions.KFAC(mc_samples=1)):
            criterion(module(problem.x), problem.y).backward()
        return module

    def with_labels() -> Named:
        """The products with factors whose drawn labels are the given ones."""
        y = problem.y
        given = SimpleNamespace(sample=lambda shape: y.expand(*shape, *y.shape))
        draws = patch.object(
            CrossEntropyLossDerivatives, "_make_distribution", lambda self, z: given
        )
        with draws:
            module, found = factors(), dict[str, torch.Tensor]()
        for layer in problem.layers:
            weight: Any = module.get_submodule(layer).weight
            g, a = weight.kfac
            product = g @ problem.w[f"{layer}.weight"].flatten(1) @ a
            found[f"{layer}.weight"] = product.reshape(weight.shape)
        return found

    convolves = any(isinstance(m, nn.Conv2d) for m in problem.layers.values())
    products = partial(with_math, hvp), partial(with_math, ggnvp)
    made: dict[str, tuple[Callable[[], Any], Callable[[], Named], str, bool]] = {
        "hvp": (products[0], products[0], "", True),
        "ggnvp": (products[1], products[1], "", True),
        "kfac": (factors, with_labels, SUMMED if convolves else APART, not convolves),
    }
    for operation, (run, numbers, differs, comparable) in made.items():
        if operation in wanted:
            yield Call(NAME, operation, run, numbers, differs, comparable)
