"""A module as a graph of ATen ops without writes in place, in training or evaluation mode.

`torch.export` traces the module on tensors without content, with a symbol for the batch size. The
high-level ops stay as they are (linear layers, convolutions, norms, attention, …); what is not
`known` is decomposed as far as PyTorch can, and the rest is left for whoever reads the graph.
"""

from __future__ import annotations

import inspect
import io
import logging
import operator
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import ExportGraphSignature
from torch.func import functional_call
from torch.fx import Graph
from torch.utils import _pytree as pytree

from ..graph.errors import NewtritonError
from ..graph.locks import PROCESS
from ..language.trees import named
from .calls import RECURRENT, Call
from .failures import sentence

SMALL = 65_535  # samples that cuDNN's batch norm takes in evaluation mode, and more in training
ROUNDS = 4  # a decomposition may be made of ops that need one themselves
UNGRADED = torch.ops.higher_order.wrap_with_set_grad_enabled


@dataclass(frozen=True)
class Exported:
    """A module in one of its modes.

    Attributes:
        nodes: the calls and inputs, operands first.
        parameters: the parameters by the names of the nodes that stand for them.
        constants: the values of buffers and of tensors that the code holds, likewise.
        buffers: the buffers' names, likewise.
        inputs: the names of the nodes of the user's inputs, by the names of the inputs.
        mutated: the buffers that a call changes, by the names of the nodes of their new values.
        output: the node of the output.
        momenta: the momentum of each batch norm, by its path.
    """

    nodes: list[Call]
    parameters: Mapping[str, str]
    constants: Mapping[str, Tensor]
    buffers: Mapping[str, str]
    inputs: Mapping[str, str]
    mutated: Mapping[str, str]
    output: Call
    momenta: Mapping[str, float | None]


def exported(
    module: nn.Module,
    example: Any,
    training: bool,
    choose: Callable[[Any], Tensor],
    unknown: Callable[[Sequence[Call], Collection[str]], Collection[Any]],
) -> Exported:
    """Returns the module in one mode; the module is left as it was.

    Args:
        module: the module.
        example: a batch, a tensor, a tuple of tensors or a dict of them by argument.
        training: whether it is in training mode.
        choose: takes the tensor that counts from what the module returns.
        unknown: returns the ops that cannot stay as they are, from calls and the names of the
            nodes that stand for constants.

    Raises:
        NewtritonError: PyTorch cannot trace the module.
    """
    args, kwargs = arguments(module, example)
    try:
        with _traced(module, training) as momenta, _chosen(module, choose), _without_graphs():
            shapes = _dynamic(module, args, kwargs)
            program = export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
            _detach_ungraded(program.graph)
            program = _decomposed(program.run_decompositions({}), unknown)
    except Exception as error:  # PyTorch's errors have no class in common
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        said = sentence(module, error, partial(_run, module, example, buffers))
        raise NewtritonError(said) from error
    signature = program.graph_signature
    first = {id(p): name for name, p in module.named_parameters()}
    parameters = signature.inputs_to_parameters.items()
    names = named(example if isinstance(example, (tuple, list)) else kwargs or args[0])
    (output,) = signature.user_outputs
    nodes: list[Any] = list(program.graph.nodes)
    return Exported(
        nodes,
        {node: first[id(module.get_parameter(name))] for node, name in parameters},
        _constants(program, module),
        dict(signature.inputs_to_buffers),
        dict(zip(names, map(str, signature.user_inputs), strict=True)),
        dict(signature.buffers_to_mutate),
        next(node for node in nodes if node.name == output),
        momenta,
    )


def runs_with(module: nn.Module, example: Any, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the module runs with other tensors for its parameters, in evaluation mode.

    Views of what they make, for example, may need strides that these do not give.
    """
    try:
        _run(module, example, tensors)
    except RuntimeError:
        return False
    return True


def _run(module: nn.Module, example: Any, tensors: Mapping[str, Tensor]) -> None:
    """Runs a module with other tensors for some of its own, in evaluation mode."""
    args, kwargs = arguments(module, example)
    with (
        _quiet(),
        _mode(module, training=False),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
    ):
        functional_call(module, dict(tensors), args, kwargs)


def _constants(program: ExportedProgram, module: nn.Module) -> dict[str, Tensor]:
    """The values of buffers and of tensors in the code, by the nodes that stand for them."""
    signature = program.graph_signature
    buffers = signature.inputs_to_buffers.items()
    tensors = signature.inputs_to_lifted_tensor_constants.items()
    held: dict[str, Any] = dict(program.constants)
    return {
        **{node: module.get_buffer(name) for node, name in buffers},
        **{node: held[name] for node, name in tensors},
    }


def arguments(module: nn.Module, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the positional and the named arguments that a batch means.

    Named ones come in the order of the module's, as they do in the exported graph.
    """
    if not isinstance(example, Mapping):
        return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}
    order = [*inspect.signature(module.forward).parameters]
    places = {name: order.index(name) if name in order else len(order) for name in example}
    return (), {name: example[name] for name in sorted(example, key=places.__getitem__)}


def _dynamic(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The first axis of every tensor is the batch.

    It is traced below the sizes at which batch norm asks how large it is, on a GPU alone.
    """
    batch = Dim("N", max=SMALL)
    bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    return pytree.tree_map(lambda x: {0: batch} if isinstance(x, Tensor) else None, dict(bound))


def _detach_ungraded(graph: Graph) -> None:
    """Detaches what is computed under `torch.no_grad`, of which nothing is left otherwise."""
    for region in graph.find_nodes(op="call_function", target=UNGRADED):
        if region.args[0]:
            continue
        for value in [n for n in region.users if n.target is operator.getitem]:
            with graph.inserting_after(value):
                fixed = graph.call_function(torch.ops.aten.detach.default, (value,))
            fixed.meta = dict(value.meta)
            value.replace_all_uses_with(fixed, delete_user_cb=lambda user, f=fixed: user is not f)


def _decomposed(program: ExportedProgram, unknown: Callable[..., Any]) -> ExportedProgram:
    """The program without those unknown ops that PyTorch can express in others."""
    for _ in range(ROUNDS):
        ops = unknown(list(program.graph.nodes), constant_inputs(program.graph_signature))
        table = {op: rule for op in ops if (rule := _decomposition(op)) is not None}
        if not table:
            break
        program = program.run_decompositions(table)
    return program


def constant_inputs(signature: ExportGraphSignature) -> set[str]:
    """Returns the names of the nodes of tensors that no call changes."""
    changed = signature.buffers_to_mutate.values()
    buffers = signature.inputs_to_buffers.items()
    kept = {node for node, name in buffers if name not in changed}
    return kept | set(signature.inputs_to_lifted_tensor_constants)


def _decomposition(op: Any) -> Callable[..., Any] | None:
    """How PyTorch expresses an op in others; None where it does not."""
    if not isinstance(op, OpOverload) or op._schema.name.removeprefix("aten::") in RECURRENT:
        return None
    table = core_aten_decompositions()
    if op in table:
        return table[op]
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return op.decompose if op.has_kernel_for_dispatch_key(composite) else None


# --- around an export ------------------------------------------------------------------------


@contextmanager
def _traced(module: nn.Module, training: bool) -> Iterator[dict[str, float | None]]:
    """Prepares the module and PyTorch for a trace; yields the momenta of batch norms.

    An autocast around the call means nothing, as for all calls of a model.
    """
    place = next(module.parameters()).device.type
    with (
        _quiet(),
        torch.autocast(place, enabled=False),
        _without_cudnn(),
        _mode(module, training),
        _own_derivatives_refused(),
        _numbers_for_momenta(module) as momenta,
    ):
        yield momenta


@contextmanager
def _chosen(module: nn.Module, choose: Callable[[Any], Tensor]) -> Iterator[None]:
    """Has the module return the tensor that counts."""
    hook = module.register_forward_hook(lambda _module, _inputs, outputs: choose(outputs))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _own_derivatives_refused() -> Iterator[None]:
    """Refuses `torch.autograd.Function`s: a trace sees what they compute, not their derivatives."""
    kept = vars(torch.autograd.Function)["apply"]

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        if cls.__module__.partition(".")[0] != "torch":
            raise NewtritonError(
                f"{cls.__name__} is a torch.autograd.Function, whose derivative is its own: write "
                "it with operations of torch, which are derived here"
            )
        return kept.__func__(cls, *args, **kwargs)

    function: Any = torch.autograd.Function
    function.apply = classmethod(apply)
    try:
        yield
    finally:
        function.apply = kept


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Has a trace on a GPU see what one on a CPU does.

    Batch norm becomes another op where cuDNN computes it.
    """
    enabled = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what PyTorch logs about its own tracing, and its inference-only fast paths.

    All that is set here and inside is the process's: one thread captures at a time.
    """
    with PROCESS, warnings.catch_warnings(), torch.enable_grad():
        disabled, fast = logging.root.manager.disable, torch.backends.mha.get_fastpath_enabled()
        logging.disable(logging.ERROR)  # what fails is raised, too
        torch.backends.mha.set_fastpath_enabled(False)
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)
            torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _without_graphs() -> Iterator[None]:
    """Keeps back the graphs that PyTorch prints of a trace that fails; what else is printed, comes.

    They go to the process's standard error, wherever that leads.
    """
    held, graph = io.StringIO(), None
    try:
        with redirect_stderr(held):
            yield
    except Exception as error:
        graph = getattr(error, "partial_fx_graph", None)
        raise
    finally:
        text = held.getvalue()
        print(text if graph is None else text.replace(f"{graph}\n", ""), end="", file=sys.stderr)


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Sets the mode, and restores every part's own.

    A module that is in training mode already stays as it is, with parts that are not.
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        if not (training and module.training):
            module.train(training)
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _numbers_for_momenta(module: nn.Module) -> Iterator[dict[str, float | None]]:
    """Yields batch norms' momenta by path; None, which needs a counter's value, is set aside."""
    norms = {
        n: m for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._NormBase)
    }
    momenta: dict[str, float | None] = {name: norm.momentum for name, norm in norms.items()}
    with ExitStack() as stack:
        for name, norm in norms.items():
            if momenta[name] is None:
                norm.momentum = 0.1
                stack.callback(setattr, norm, "momentum", None)
        yield momenta
