"""The model that options describe: a network of the catalogue or of the user's, with its loss."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from typing import Any

import torch
from torch import Tensor, nn

from ..compiler.graph.errors import NewtritonError, quoted
from ..compiler.graph.options import check_count
from ..compiler.language.initial import WEIGHTS
from ..compiler.language.inputs import InputSpec
from ..compiler.language.loss import Loss
from ..compiler.language.network import Layer
from ..compiler.language.trees import is_several, mapped
from ..runtime.data.samples import Samples
from ..runtime.model.compile import BACKENDS
from ..runtime.model.compile import compile as compile_network
from ..runtime.model.from_torch import from_torch
from ..runtime.model.model import Model
from .catalogue import DEFAULT, LOSSES, NETWORKS
from .references import named, needed, users_code

LOSS = "ce"  # unless one is given
OPTIONS = ("classes", "init", "batch_norm")  # that a network may take


def add_network(command: ArgumentParser, net: str | None) -> None:
    """Adds the options that describe a model.

    Args:
        command: the command's parser.
        net: the network unless one is given; None where one must be.
    """
    add = command.add_argument
    user = "or module:attribute of yours (package.module:net, path/to/file.py:net)"
    shown = "" if net is None else f" {DEFAULT}"
    add(
        "--net", default=net, required=net is None, metavar="NAME",
        help=f"the network: {', '.join(NETWORKS)}; {user}, a layer, an nn.Module or what makes "
        f"one{shown}",
    )  # fmt: skip
    add(
        "--loss", default=LOSS, metavar="NAME",
        help=f"the loss of a sample: {', '.join(LOSSES)}; {user} {DEFAULT}",
    )  # fmt: skip
    add(
        "--classes", type=int,
        help="the number of the network's outputs (default: the classes of the data, or 10)",
    )  # fmt: skip
    add(
        "--init", choices=WEIGHTS,
        help="the rule for the first weights; kaiming is He normal with biases of 0 (default: the "
        "network's own)",
    )  # fmt: skip
    add(
        "--batch-norm", action=BooleanOptionalAction,
        help="whether a batch norm follows each convolution, in vgg11, vgg16, vgg19 (default: the "
        "network's own)",
    )  # fmt: skip
    add("--backend", choices=BACKENDS, default="auto", help=f"what runs the programs {DEFAULT}")


def network(options: Namespace, samples: Samples | None = None) -> Layer | nn.Module:
    """Returns the network that the options name, with weights drawn from their seed.

    Args:
        options: the options of `add_network`.
        samples: the data, whose classes and features are the network's; None where there are none.

    Raises:
        NewtritonError: there is no such network, or it does not take an option.
    """
    found: Any = named(options.net, NETWORKS, "--net")
    if not _is_network(found):
        found = _made(found, options, samples)
    else:
        _check_taken(options, (), f"{options.net}, which is a network already")
    if not _is_network(found):
        raise NewtritonError(
            f"--net {options.net} gives {quoted(found)}: give a layer of newtriton, an nn.Module, "
            "or a function or class that makes one"
        )
    return found


def loss(options: Namespace) -> Loss:
    """Returns the loss that the options name.

    Raises:
        NewtritonError: there is none.
    """
    found = named(options.loss, LOSSES, "--loss")
    with users_code(f"--loss {options.loss}"):
        made = found if isinstance(found, Loss) or not callable(found) else found()
    if not isinstance(made, Loss):
        raise NewtritonError(
            f"--loss {options.loss} gives {quoted(made)}: give an nt.Loss, or a function or class "
            "that makes one without arguments"
        )
    return made


def model_of(
    options: Namespace, samples: Samples | None = None, shape: Any = None, **settings: Any
) -> Model:
    """Returns the model of network and loss.

    Args:
        options: the options of `add_network`.
        samples: the data; None where there are none.
        shape: the shape of an input, where there are no data.
        settings: further options of `nt.compile`, in place of the command line's too.

    Raises:
        NewtritonError: an option does not go with the network, or the data do not.
    """
    net, criterion = network(options, samples), loss(options)
    shape = shape if samples is None else mapped(InputSpec.of, samples.x)
    chosen = {"backend": options.backend, **settings}
    if not isinstance(net, nn.Module):
        return compile_network(net, shape, criterion, **chosen)
    device = "cuda" if torch.cuda.is_available() else None
    return from_torch(net, loss=criterion, input_shape=shape, device=device, **chosen)


def _is_network(found: object) -> bool:
    """Whether this is a network, and not something that makes one."""
    if isinstance(found, type):
        return False
    return isinstance(found, nn.Module) or callable(getattr(found, "build", None))


def _made(make: Any, options: Namespace, samples: Samples | None) -> object:
    """Returns what a function or class makes, with those of the options that it takes."""
    if not callable(make):
        return make
    takes = inspect.signature(make).parameters
    _check_taken(options, takes, options.net)
    given = {name: getattr(options, name) for name in OPTIONS if name in takes}
    given = {name: value for name, value in given.items() if value is not None}
    if samples is not None:
        of_data = {"classes": _classes(samples.y), "inputs": _features(samples.x)}
        given = {n: v for n, v in of_data.items() if n in takes and v is not None} | given
    if missing := needed(make, given):
        options_of = [f"--{name.replace('_', '-')}" for name in missing if name in OPTIONS]
        raise NewtritonError(
            f"--net {options.net} needs {', '.join(missing)}: "
            + (f"give {', '.join(options_of)}, or " if options_of else "give ")
            + f"a function or class that needs no more than {', '.join(OPTIONS)} and inputs, the "
            "number of features"
        )
    torch.manual_seed(vars(options).get("seed", 0))  # nn.Modules draw from it
    with users_code(f"--net {options.net}"):
        return make(**given)


def _check_taken(options: Namespace, takes: Any, what: str) -> None:
    """Checks that the network takes those options that are given."""
    if options.classes is not None:
        check_count("--classes", options.classes)
    for name in OPTIONS:
        if getattr(options, name) is not None and name not in takes:
            known = ", ".join(f"--{o.replace('_', '-')}" for o in OPTIONS if o in takes)
            raise NewtritonError(
                f"--{name.replace('_', '-')} is not for {what}, which takes "
                f"{known or 'no such option'}"
            )


def _classes(y: Any) -> int | None:
    """Returns the number of classes, where labels are classes in memory."""
    known = isinstance(y, Tensor) and y.dtype == torch.int64 and y.numel() > 0
    return int(y.max()) + 1 if known else None


def _features(x: Any) -> int | None:
    """Returns the number of features of a sample, where there is one input of features."""
    return x.shape[1] if not is_several(x) and len(x.shape) == 2 else None
