"""First values of parameters: distributions, and the rules that a layer can name instead.

The runtime draws from the distributions; a rule is added here, in one entry of `INITIAL`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Uniform:
    """The uniform distribution on [−bound, bound].

    Attributes:
        bound: half of the interval's width.
    """

    bound: float


@dataclass(frozen=True)
class Normal:
    """The normal distribution of mean 0.

    Attributes:
        deviation: its standard deviation.
    """

    deviation: float


@dataclass(frozen=True)
class Sparse:
    """Standard normal numbers at some random inputs of each output, and zeros elsewhere.

    Attributes:
        connections: how many inputs of an output are not zero.
    """

    connections: int


@dataclass(frozen=True)
class Constant:
    """The same number everywhere.

    Attributes:
        value: the number.
    """

    value: float


@dataclass(frozen=True)
class NormalRows:
    """Standard normal numbers, and zeros in one row.

    Attributes:
        zero: the row; None for none.
    """

    zero: int | None


Distribution = Uniform | Normal | Sparse | Constant | NormalRows

# From the rule's name and the numbers of inputs and outputs (fan_in, fan_out) to the distribution.
INITIAL: dict[str, Callable[[int, int], Distribution]] = {
    # PyTorch's own, for weights and biases
    "default": lambda fan_in, _: Uniform(1.0 / math.sqrt(fan_in)),
    # He et al. (2015)
    "kaiming": lambda fan_in, _: Normal(math.sqrt(2.0 / fan_in)),
    # Glorot & Bengio (2010)
    "xavier": lambda fan_in, fan_out: Uniform(math.sqrt(6.0 / (fan_in + fan_out))),
    # Martens (2010)
    "sparse": lambda *_: Sparse(15),
    "ones": lambda *_: Constant(1.0),
    "zeros": lambda *_: Constant(0.0),
}

WEIGHTS = ("default", "kaiming", "xavier", "sparse")  # the rules for weights of the layers here


def bias_rule(weights: str) -> str:
    """Returns the rule for a layer's bias where its weights follow the rule `weights`."""
    return "default" if weights == "default" else "zeros"
