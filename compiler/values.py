"""What the programs of a network read and give: the keys of their inputs and outputs.

Keys of statistics and Jacobians stand beside the transformations that make those, in `curvature`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .graph.program import Input, Output


@dataclass(frozen=True, eq=False)
class Data(Input):
    """One of the inputs of a batch, N×(the shape of a sample).

    Attributes:
        name: the name of the input, "x" where there is one.
    """

    name: str
    kind = "x"


@dataclass(frozen=True, eq=False)
class Labels(Input):
    """The labels of a batch, as the loss takes them."""

    kind = "y"


@dataclass(frozen=True, eq=False)
class GivenOutputs(Input):
    """The network's outputs, where they are known already."""

    kind = "z"


@dataclass(frozen=True, eq=False)
class Normaliser(Input):
    """What the sum of the losses is divided by, where a program is of a part of a batch."""

    kind = "normaliser"


@dataclass(frozen=True, eq=False)
class Samples(Input):
    """How many samples the whole batch has, where a program is of a part of it."""

    kind = "samples"


@dataclass(frozen=True, eq=False)
class Columns(Input):
    """The numbers 0 … K−1, each for all rows of outputs: K×N. Their one-hots are unit vectors."""

    kind = "columns"


@dataclass(frozen=True, eq=False)
class ParameterValue(Input):
    """The value of a parameter, in the parameter's own shape.

    Attributes:
        parameter: the parameter's name.
    """

    parameter: str
    kind = "param"


@dataclass(frozen=True, eq=False)
class RunningValue(Input):
    """A running statistic of batch norm, one number per channel.

    Attributes:
        statistic: the name of the running statistic.
    """

    statistic: str
    kind = "running"


@dataclass(frozen=True, eq=False)
class Constant(Input):
    """A constant tensor of the network.

    Attributes:
        name: the name of the constant, which follows from its values.
    """

    name: str
    kind = "constant"


@dataclass(frozen=True, eq=False)
class RandomNumbers(Input):
    """Uniform random numbers in [0, 1) from which elements are chosen that drop out.

    Attributes:
        site: the name of the place in the network.
    """

    site: str
    kind = "random"


@dataclass(frozen=True, eq=False)
class Direction(Input):
    """A parameter's part of the i-th direction, in the parameter's own shape.

    Attributes:
        i: the number of the direction, from 0.
        parameter: the parameter's name.
    """

    i: int
    parameter: str
    kind = "v"

    def __str__(self) -> str:
        return f"v{self.i}:{self.parameter}"


@dataclass(frozen=True, eq=False)
class Losses(Output):
    """The N per-sample losses."""

    kind = "losses"


@dataclass(frozen=True, eq=False)
class Counted(Output):
    """What the sum of the losses is divided by, where labels decide what counts: a scalar."""

    kind = "counted"


@dataclass(frozen=True, eq=False)
class Outputs(Output):
    """The network's outputs, as users see them."""

    kind = "outputs"


@dataclass(frozen=True, eq=False)
class Scores(Output):
    """The scores, N×classes; the largest of a row is the class that is predicted."""

    kind = "scores"


@dataclass(frozen=True, eq=False)
class Gradient(Output):
    """A parameter's part of the data term's gradient.

    Attributes:
        parameter: the parameter's name.
    """

    parameter: str
    kind = "gradient"


@dataclass(frozen=True, eq=False)
class Hvp(Output):
    """A parameter's part of the data term's Hessian times a direction.

    Attributes:
        parameter: the parameter's name.
    """

    parameter: str
    kind = "hvp"


@dataclass(frozen=True, eq=False)
class Ggnvp(Output):
    """A parameter's part of the data term's Gauss–Newton matrix times a direction.

    Attributes:
        parameter: the parameter's name.
    """

    parameter: str
    kind = "ggnvp"


@dataclass(frozen=True, eq=False)
class BatchStatistic(Output):
    """What a batch contributes to a running statistic.

    Attributes:
        statistic: the name of the running statistic.
    """

    statistic: str
    kind = "statistics"


@dataclass(frozen=True, eq=False)
class Form(Output):
    """The scalar vᵢᵀ C vⱼ, for i ≤ j.

    Attributes:
        i: the number of the left direction.
        j: the number of the right direction.
    """

    i: int
    j: int
    kind = "form"
