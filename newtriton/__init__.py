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

# ruff: noqa: E402

import importlib.metadata as _metadata
import pathlib as _pathlib

# In a clone the other rooms lie beside this folder. An editable installation names the clone alone,
# so that in the folder above, too, Python finds this package before the folder of the clone.
_clone = _pathlib.Path(__file__).parents[1]
if (_clone / "pyproject.toml").is_file() and (_clone / "compiler").is_dir():
    __path__.append(str(_clone))

try:
    __version__ = _metadata.version("newtriton")
except _metadata.PackageNotFoundError:  # a clone on Python's path that nobody has installed
    __version__ = "0+unknown"

from newtriton.compiler.graph import ops as ops
from newtriton.compiler.graph import scalar as scalar
from newtriton.compiler.graph.errors import MissingRule as MissingRule
from newtriton.compiler.graph.errors import NewtritonError as NewtritonError
from newtriton.compiler.graph.errors import ShapeError as ShapeError
from newtriton.compiler.language.elementwise_loss import Criterion as Criterion
from newtriton.compiler.language.inputs import InputSpec as InputSpec
from newtriton.compiler.language.loss import Loss as Loss
from newtriton.compiler.language.losses import BCEWithLogitsLoss as BCEWithLogitsLoss
from newtriton.compiler.language.losses import CrossEntropyLoss as CrossEntropyLoss
from newtriton.compiler.language.losses import MixtureLoss as MixtureLoss
from newtriton.compiler.language.losses import MSELoss as MSELoss
from newtriton.compiler.language.losses import SigmoidMarginLoss as SigmoidMarginLoss
from newtriton.compiler.language.scaled_loss import Scaled as Scaled
from newtriton.compiler.layers import models as models
from newtriton.compiler.layers.activations import CELU as CELU
from newtriton.compiler.layers.activations import ELU as ELU
from newtriton.compiler.layers.activations import GELU as GELU
from newtriton.compiler.layers.activations import GLU as GLU
from newtriton.compiler.layers.activations import SELU as SELU
from newtriton.compiler.layers.activations import Hardshrink as Hardshrink
from newtriton.compiler.layers.activations import Hardsigmoid as Hardsigmoid
from newtriton.compiler.layers.activations import Hardswish as Hardswish
from newtriton.compiler.layers.activations import Hardtanh as Hardtanh
from newtriton.compiler.layers.activations import LeakyReLU as LeakyReLU
from newtriton.compiler.layers.activations import LogSigmoid as LogSigmoid
from newtriton.compiler.layers.activations import Mish as Mish
from newtriton.compiler.layers.activations import PReLU as PReLU
from newtriton.compiler.layers.activations import ReLU as ReLU
from newtriton.compiler.layers.activations import ReLU6 as ReLU6
from newtriton.compiler.layers.activations import Sigmoid as Sigmoid
from newtriton.compiler.layers.activations import SiLU as SiLU
from newtriton.compiler.layers.activations import Softplus as Softplus
from newtriton.compiler.layers.activations import Softshrink as Softshrink
from newtriton.compiler.layers.activations import Softsign as Softsign
from newtriton.compiler.layers.activations import Tanh as Tanh
from newtriton.compiler.layers.activations import Tanhshrink as Tanhshrink
from newtriton.compiler.layers.activations import Threshold as Threshold
from newtriton.compiler.layers.attention import LogSoftmax as LogSoftmax
from newtriton.compiler.layers.attention import SelfAttention as SelfAttention
from newtriton.compiler.layers.attention import Softmax as Softmax
from newtriton.compiler.layers.containers import Add as Add
from newtriton.compiler.layers.containers import Concat as Concat
from newtriton.compiler.layers.containers import Residual as Residual
from newtriton.compiler.layers.containers import Sequential as Sequential
from newtriton.compiler.layers.convolutions import Conv1d as Conv1d
from newtriton.compiler.layers.convolutions import Conv2d as Conv2d
from newtriton.compiler.layers.convolutions import ConvTranspose1d as ConvTranspose1d
from newtriton.compiler.layers.convolutions import ConvTranspose2d as ConvTranspose2d
from newtriton.compiler.layers.dropout import Dropout as Dropout
from newtriton.compiler.layers.dropout import Dropout1d as Dropout1d
from newtriton.compiler.layers.dropout import Dropout2d as Dropout2d
from newtriton.compiler.layers.linear import Embedding as Embedding
from newtriton.compiler.layers.linear import Linear as Linear
from newtriton.compiler.layers.norms import BatchNorm1d as BatchNorm1d
from newtriton.compiler.layers.norms import BatchNorm2d as BatchNorm2d
from newtriton.compiler.layers.norms import GroupNorm as GroupNorm
from newtriton.compiler.layers.norms import InstanceNorm1d as InstanceNorm1d
from newtriton.compiler.layers.norms import InstanceNorm2d as InstanceNorm2d
from newtriton.compiler.layers.norms import LayerNorm as LayerNorm
from newtriton.compiler.layers.norms import RMSNorm as RMSNorm
from newtriton.compiler.layers.padding import CircularPad1d as CircularPad1d
from newtriton.compiler.layers.padding import CircularPad2d as CircularPad2d
from newtriton.compiler.layers.padding import ConstantPad1d as ConstantPad1d
from newtriton.compiler.layers.padding import ConstantPad2d as ConstantPad2d
from newtriton.compiler.layers.padding import ReflectionPad1d as ReflectionPad1d
from newtriton.compiler.layers.padding import ReflectionPad2d as ReflectionPad2d
from newtriton.compiler.layers.padding import ReplicationPad1d as ReplicationPad1d
from newtriton.compiler.layers.padding import ReplicationPad2d as ReplicationPad2d
from newtriton.compiler.layers.padding import ZeroPad1d as ZeroPad1d
from newtriton.compiler.layers.padding import ZeroPad2d as ZeroPad2d
from newtriton.compiler.layers.pools import AdaptiveAvgPool1d as AdaptiveAvgPool1d
from newtriton.compiler.layers.pools import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from newtriton.compiler.layers.pools import AdaptiveMaxPool1d as AdaptiveMaxPool1d
from newtriton.compiler.layers.pools import AdaptiveMaxPool2d as AdaptiveMaxPool2d
from newtriton.compiler.layers.pools import AvgPool1d as AvgPool1d
from newtriton.compiler.layers.pools import AvgPool2d as AvgPool2d
from newtriton.compiler.layers.pools import MaxPool1d as MaxPool1d
from newtriton.compiler.layers.pools import MaxPool2d as MaxPool2d
from newtriton.compiler.layers.shaping import Flatten as Flatten
from newtriton.compiler.layers.shaping import Identity as Identity
from newtriton.compiler.layers.shaping import Permute as Permute
from newtriton.compiler.layers.shaping import Unflatten as Unflatten
from newtriton.compiler.layers.shaping import Upsample as Upsample
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature as KroneckerCurvature
from newtriton.runtime.curvatures.matrix_free import MatrixFree as MatrixFree
from newtriton.runtime.curvatures.matrix_free import WithPreconditioner as WithPreconditioner
from newtriton.runtime.data.augmentation import CropFlip as CropFlip
from newtriton.runtime.data.curves import curves as curves
from newtriton.runtime.data.datasets import from_dataset as from_dataset
from newtriton.runtime.data.lazy import Lazy as Lazy
from newtriton.runtime.data.samples import Batches as Batches
from newtriton.runtime.data.samples import Samples as Samples
from newtriton.runtime.data.samples import digits as digits
from newtriton.runtime.data.samples import split as split
from newtriton.runtime.data.sets import available as available
from newtriton.runtime.data.sets import load as load
from newtriton.runtime.diagnostics.alignment import alignment as alignment
from newtriton.runtime.diagnostics.densities import density as density
from newtriton.runtime.diagnostics.diagonals import diagonal as diagonal
from newtriton.runtime.diagnostics.errors import layer_errors as layer_errors
from newtriton.runtime.diagnostics.linearized_data import LinearizedData as LinearizedData
from newtriton.runtime.diagnostics.spectra import spectrum as spectrum
from newtriton.runtime.diagnostics.traces import trace as trace
from newtriton.runtime.model.compile import compile as compile
from newtriton.runtime.model.factors import DiagonalFactors as DiagonalFactors
from newtriton.runtime.model.factors import KroneckerFactors as KroneckerFactors
from newtriton.runtime.model.factors import MeanFactors as MeanFactors
from newtriton.runtime.model.from_torch import from_torch as from_torch
from newtriton.runtime.model.linearization import Linearization as Linearization
from newtriton.runtime.model.model import Model as Model
from newtriton.runtime.optimizers.averaging import PolyakAverage as PolyakAverage
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
from newtriton.runtime.parallel.data_parallel import DataParallel as DataParallel
from newtriton.runtime.parts.protocols import Curvature as Curvature
from newtriton.runtime.parts.protocols import LinearSolver as LinearSolver
from newtriton.runtime.parts.protocols import Solution as Solution
from newtriton.runtime.parts.protocols import Solver as Solver
from newtriton.runtime.parts.protocols import Status as Status
from newtriton.runtime.parts.protocols import StepRule as StepRule
from newtriton.runtime.parts.tags import Tag as Tag
from newtriton.runtime.reporting.report import report as report
from newtriton.runtime.rules.fixed import Fixed as Fixed
from newtriton.runtime.rules.line_search import LevenbergMarquardt as LevenbergMarquardt
from newtriton.runtime.rules.quadratic_model import QuadraticModel as QuadraticModel
from newtriton.runtime.rules.trust_region import TrustRegion as TrustRegion
from newtriton.runtime.solvers.block_cg import BlockCG as BlockCG
from newtriton.runtime.solvers.block_cg import MeanCG as MeanCG
from newtriton.runtime.solvers.cg import Steihaug as Steihaug
from newtriton.runtime.solvers.cg import TruncatedCG as TruncatedCG
from newtriton.runtime.solvers.direct import KFI as KFI
from newtriton.runtime.solvers.direct import Eigen as Eigen
from newtriton.runtime.tracking.json_lines import JSONLines as JSONLines
from newtriton.runtime.tracking.mlflow import MLflow as MLflow
from newtriton.runtime.tracking.tensorboard import TensorBoard as TensorBoard
from newtriton.runtime.tracking.tracker import Tracker as Tracker
from newtriton.runtime.tracking.trackio import Trackio as Trackio
from newtriton.runtime.tracking.wandb import WandB as WandB
from newtriton.runtime.training.growing import GrowingBatches as GrowingBatches
from newtriton.runtime.training.history import History as History
from newtriton.runtime.training.loop import evaluate as evaluate
from newtriton.runtime.training.loop import fit as fit
from newtriton.runtime.training.plots import plot_histories as plot_histories
from newtriton.runtime.training.stopping import EarlyStopping as EarlyStopping
