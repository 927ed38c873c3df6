"""newtriton: a compiler for second-order neural-network training."""

from newtriton.compiler.errors import MissingRule, NewtritonError, ShapeError
from newtriton.compiler.layers import (
    GELU,
    Add,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from newtriton.compiler.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from newtriton.runtime.linearization import Linearization
from newtriton.runtime.model import Model, compile
