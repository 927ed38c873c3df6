"""newtriton: a compiler for second-order neural-network training.

A network of layers becomes a graph, the graph every program that a second-order method needs, and
optimizers run them.

Examples:
    >>> import newtriton as nt
    >>> train, test = nt.digits()
    >>> net = nt.Sequential(nt.Flatten(), nt.Linear(32), nt.SiLU(), nt.Linear(10))
    >>> model = nt.compile(net, input_shape=(1, 8, 8), loss=nt.CrossEntropyLoss(), seed=0)
    >>> batches = nt.Batches(*train, batch_size=500)
    >>> history = nt.fit(model, nt.FITRE(model), batches, [test], epochs=2, progress=False)
    >>> history.epochs[-1].validation_accuracy > 0.8
    True
"""

from newtriton.compiler.graph import ops as ops
from newtriton.compiler.graph import scalar as scalar
from newtriton.compiler.graph.errors import MissingRule as MissingRule
from newtriton.compiler.graph.errors import NewtritonError as NewtritonError
from newtriton.compiler.graph.errors import ShapeError as ShapeError
from newtriton.compiler.language import models as models
from newtriton.compiler.language.activations import GELU as GELU
from newtriton.compiler.language.activations import LeakyReLU as LeakyReLU
from newtriton.compiler.language.activations import ReLU as ReLU
from newtriton.compiler.language.activations import Sigmoid as Sigmoid
from newtriton.compiler.language.activations import SiLU as SiLU
from newtriton.compiler.language.activations import Softplus as Softplus
from newtriton.compiler.language.activations import Tanh as Tanh
from newtriton.compiler.language.containers import Add as Add
from newtriton.compiler.language.containers import Residual as Residual
from newtriton.compiler.language.containers import Sequential as Sequential
from newtriton.compiler.language.dropout import Dropout as Dropout
from newtriton.compiler.language.dropout import Dropout1d as Dropout1d
from newtriton.compiler.language.dropout import Dropout2d as Dropout2d
from newtriton.compiler.language.elementwise_loss import Criterion as Criterion
from newtriton.compiler.language.inputs import InputSpec as InputSpec
from newtriton.compiler.language.layers import AvgPool2d as AvgPool2d
from newtriton.compiler.language.layers import BatchNorm2d as BatchNorm2d
from newtriton.compiler.language.layers import Conv2d as Conv2d
from newtriton.compiler.language.layers import Flatten as Flatten
from newtriton.compiler.language.layers import Linear as Linear
from newtriton.compiler.language.layers import MaxPool2d as MaxPool2d
from newtriton.compiler.language.loss import Loss as Loss
from newtriton.compiler.language.losses import BCEWithLogitsLoss as BCEWithLogitsLoss
from newtriton.compiler.language.losses import CrossEntropyLoss as CrossEntropyLoss
from newtriton.compiler.language.losses import MixtureLoss as MixtureLoss
from newtriton.compiler.language.losses import MSELoss as MSELoss
from newtriton.compiler.language.losses import SigmoidMarginLoss as SigmoidMarginLoss
from newtriton.compiler.language.scaled_loss import Scaled as Scaled
from newtriton.runtime.data.curves import curves as curves
from newtriton.runtime.data.samples import Batches as Batches
from newtriton.runtime.data.samples import Samples as Samples
from newtriton.runtime.data.samples import digits as digits
from newtriton.runtime.data.samples import split as split
from newtriton.runtime.diagnostics.alignment import alignment as alignment
from newtriton.runtime.diagnostics.errors import layer_errors as layer_errors
from newtriton.runtime.diagnostics.spectra import spectrum as spectrum
from newtriton.runtime.model.compile import compile as compile
from newtriton.runtime.model.factors import DiagonalFactors as DiagonalFactors
from newtriton.runtime.model.factors import KroneckerFactors as KroneckerFactors
from newtriton.runtime.model.factors import MeanFactors as MeanFactors
from newtriton.runtime.model.linearization import Linearization as Linearization
from newtriton.runtime.model.model import Model as Model
from newtriton.runtime.optimizers.first_order import TorchOptimizer as TorchOptimizer
from newtriton.runtime.optimizers.preconditioned import Preconditioned as Preconditioned
from newtriton.runtime.optimizers.presets import EACG as EACG
from newtriton.runtime.optimizers.presets import FITRE as FITRE
from newtriton.runtime.optimizers.presets import KFAC as KFAC
from newtriton.runtime.optimizers.presets import KFLR as KFLR
from newtriton.runtime.optimizers.presets import KFRA as KFRA
from newtriton.runtime.optimizers.presets import NewtonCG as NewtonCG
from newtriton.runtime.optimizers.report import StepReport as StepReport
from newtriton.runtime.optimizers.second_order import SecondOrder as SecondOrder
from newtriton.runtime.training.growing import GrowingBatches as GrowingBatches
from newtriton.runtime.training.history import History as History
from newtriton.runtime.training.loop import evaluate as evaluate
from newtriton.runtime.training.loop import fit as fit
from newtriton.runtime.training.plots import plot_histories as plot_histories
