"""`newtriton inspect`: shows what a network compiles to, or its curvature on a batch of data."""

import argparse
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..compiler.graph.errors import NewtritonError
from ..compiler.language.loss import Loss
from ..compiler.language.network import Layer, trace
from ..compiler.programs import Programs
from ..runtime.data.samples import Batches
from ..runtime.diagnostics.errors import OF
from ..runtime.model.compile import BACKENDS
from ..runtime.model.compile import compile as compile_network
from .catalogue import DATA, DEFAULT, DIAGNOSES, LOSSES, NETWORKS, PROGRAMS, keywords_for, takers


def add_to(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.set_defaults(run=run)
    add = command.add_argument
    add("--net", choices=NETWORKS, required=True, help="the network")
    add("--input", type=shape, metavar="CxHxW", help="the size of a sample, without --diagnose")
    add("--loss", choices=LOSSES, default="ce", help=f"the loss {DEFAULT}")
    add(
        "--backend", choices=BACKENDS, default="auto",
        help=f"what runs the programs, unless only graphs are shown {DEFAULT}",
    )  # fmt: skip
    add(
        "--batch", type=int, default=64,
        help=f"how many samples costs are counted for, or are diagnosed {DEFAULT}",
    )  # fmt: skip
    add("--kernels", action="store_true", help="beside the costs, show fused kernels with source")
    add("--graph", action="store_true", help="show the graphs of all programs instead of the costs")
    add("--program", choices=PROGRAMS, help="show the graph of this program alone")
    add("--diagnose", choices=DIAGNOSES, help="show this of the curvature on a batch")
    add("--data", choices=DATA, help="the data whose first batch is diagnosed, for --diagnose")
    add(
        "--weights", type=Path, metavar="FILE",
        help="the weights.safetensors of a run, for --diagnose (default: the first weights)",
    )  # fmt: skip
    add("--damping", type=float, help=f"γ, for --diagnose {takers(DIAGNOSES, 'damping')}")
    add("--of", choices=OF, help=f"which parameters, for --diagnose {takers(DIAGNOSES, 'of')}")


def shape(text: str) -> tuple[int, ...]:
    """Returns the sizes in "3x32x32"."""
    sizes = text.lower().split("x")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write it like 3x32x32 or 784")
    return tuple(map(int, sizes))


def run(options: argparse.Namespace) -> None:
    """Prints what the network compiles to, the graphs of its programs, or its curvature."""
    _check_inspect(options)
    net, loss = NETWORKS[options.net](), LOSSES[options.loss]()
    if options.diagnose:
        return _diagnose(options, net, loss)
    if not (options.graph or options.program):
        model = compile_network(net, options.input, loss, backend=options.backend)
        print(model.explain(options.batch, options.kernels))
        return
    programs = Programs(trace(net, options.input, loss))
    for name in [options.program] if options.program else PROGRAMS:
        print(PROGRAMS[name](programs))


def _check_inspect(options: argparse.Namespace) -> None:
    """Raises an error where options do not go together."""
    needed, unfit = "input", ("data", "weights", "damping", "of")
    if options.diagnose:
        needed, unfit = "data", ("input", "graph", "program", "kernels")
    which = "with" if options.diagnose else "without"
    for name in unfit:
        value = getattr(options, name)
        if value is not None and value is not False:
            raise NewtritonError(f"--{name} means nothing {which} --diagnose")
    if getattr(options, needed) is None:
        raise NewtritonError(f"--{needed} is needed {which} --diagnose")


def _diagnose(options: argparse.Namespace, net: Layer, loss: Loss) -> None:
    """Prints a diagnosis on the first batch of the training data, in float64."""
    keywords = keywords_for(options, "diagnose", DIAGNOSES)
    x, y = next(iter(Batches(*DATA[options.data]()[0], options.batch)))
    model = compile_network(
        net, tuple(x.shape[1:]), loss, backend=options.backend, dtype=torch.float64
    )
    if options.weights is not None:
        try:
            model.load_state_dict(load_file(options.weights))
        except SafetensorError as error:
            raise NewtritonError(f"{options.weights} holds no weights: {error}") from error
    lin = model.linearize(x.to(model.device, model.dtype), y.to(model.device))
    print(DIAGNOSES[options.diagnose].make(lin, **keywords))
