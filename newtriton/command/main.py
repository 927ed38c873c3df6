"""The command line: `newtriton train | inspect | check | bench`.

What cannot be done is said in one line on stderr, with exit status 2.
"""

import argparse
import os
import pkgutil
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tqdm.auto import tqdm

from .. import bench
from ..compiler.graph.errors import NewtritonError
from ..compiler.language.loss import Loss
from ..compiler.language.losses import CrossEntropyLoss
from ..compiler.language.network import Layer, trace
from ..compiler.programs import Programs
from ..runtime.data.samples import Batches
from ..runtime.diagnostics.errors import OF
from ..runtime.model.compile import BACKENDS, PRECISIONS
from ..runtime.model.compile import compile as compile_network
from ..runtime.training.history import History
from ..runtime.training.loop import fit
from ..runtime.training.runs import RunFolder
from .catalogue import DATA, DIAGNOSES, LOSSES, NETWORKS, OPTIMIZERS, PROGRAMS

DESCRIPTION = "A compiler for second-order neural-network training."


class Parser(argparse.ArgumentParser):
    """A parser whose errors take one line; its sub-commands get the same class."""

    def error(self, message: str) -> NoReturn:
        """Ends with status 2."""
        self.exit(2, f"error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (NewtritonError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parser() -> Parser:
    """The commands and their options."""
    top = Parser(prog="newtriton", description=DESCRIPTION)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a network, and keep the run in a folder"))
    _add_inspect(commands.add_parser("inspect", help="show what a network compiles to"))
    _add_check(commands.add_parser("check", help="hold the kernels to account"))
    _add_bench(commands.add_parser("bench", help="run a measurement, or list them"))
    return top


def _add_train(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_train)
    command.add_argument("--data", choices=DATA, default="digits")
    command.add_argument("--net", choices=NETWORKS, default="cnn")
    command.add_argument("--optimizer", choices=OPTIMIZERS, default="fitre")
    command.add_argument("--epochs", type=int, default=10, help="length of the whole run")
    command.add_argument("--batch-size", type=int, default=128)
    command.add_argument("--damping", type=float, help="first γ, for fitre, kfac and newton-cg")
    command.add_argument("--radius", type=float, help="of the largest trust region, for fitre")
    command.add_argument("--lr", type=float, help="learning rate, for sgd and adam")
    command.add_argument("--weight-decay", type=float, default=0.0)
    command.add_argument("--seed", type=int, default=0, help="of weights and order of the data")
    command.add_argument("--backend", choices=BACKENDS, default="auto")
    command.add_argument("--output", type=Path, required=True, metavar="DIR")
    command.add_argument("--resume", action="store_true", help="go on with the run in DIR")


def _train(options: argparse.Namespace) -> None:
    """Trains, prints a row per epoch, and leaves history, picture and weights in the folder."""
    if options.epochs < 1:
        raise NewtritonError(f"--epochs is {options.epochs}: it must be at least 1")
    keywords = _optimizer_keywords(options)
    train, validation = DATA[options.data]()
    model = compile_network(
        NETWORKS[options.net](),
        input_shape=tuple(train.x.shape[1:]),
        loss=CrossEntropyLoss(),
        backend=options.backend,
        weight_decay=options.weight_decay,
        seed=options.seed,
    )
    optimizer = OPTIMIZERS[options.optimizer].make(model, **keywords)
    batches = Batches(*train, options.batch_size, seed=options.seed)
    folder = RunFolder(options.output, _run_options(options))
    history = folder.load(model, optimizer, batches) if options.resume else folder.begin()

    def after_epoch(history: History) -> None:
        folder.save(model, optimizer, batches, history)
        tqdm.write(_row(history))

    print(f"{'epoch':>5}  {'loss':>9}  {'val. loss':>9}  {'accuracy':>8}  {'seconds':>8}")
    remaining = options.epochs - len(history.epochs)
    if remaining > 0:
        fit(
            model,
            optimizer,
            batches,
            Batches(*validation, 500, shuffle=False),
            remaining,
            progress=sys.stderr.isatty(),
            callbacks=[after_epoch],
            history=history,
        )
    if history.interrupted:
        print("interrupted: --resume goes on from the last complete epoch")
    if history.epochs:
        history.plot(options.output / "plot.png", against=("epochs", "seconds"))
        print(f"history, picture and weights are in {options.output}")


def _optimizer_keywords(options: argparse.Namespace) -> dict[str, float]:
    """The options given for the optimizer, by its keywords."""
    keywords = OPTIMIZERS[options.optimizer].keywords
    given = {
        name: value
        for name in ("damping", "radius", "lr")
        if (value := getattr(options, name)) is not None
    }
    for name in given:
        if name not in keywords:
            takes = ", ".join(f"--{keyword}" for keyword in keywords)
            raise NewtritonError(f"--{name} is not for {options.optimizer}, which takes {takes}")
    return {keywords[name]: value for name, value in given.items()}


def _run_options(options: argparse.Namespace) -> Mapping[str, Any]:
    """What has to be the same when a run goes on."""
    free = ("run", "epochs", "output", "resume")
    return {name: value for name, value in vars(options).items() if name not in free}


def _row(history: History) -> str:
    """The last epoch as a row of the table."""
    epoch = history.epochs[-1]
    return (
        f"{epoch.number:5}  {epoch.loss:9.4f}  {epoch.validation_loss:9.4f}  "
        f"{epoch.validation_accuracy:8.2%}  {epoch.seconds:8.1f}"
    )


def _add_inspect(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_inspect)
    command.add_argument("--net", choices=NETWORKS, required=True)
    command.add_argument("--input", type=shape, metavar="CxHxW", help="of a sample, without --data")
    command.add_argument("--loss", choices=LOSSES, default="ce")
    command.add_argument("--backend", choices=BACKENDS, default="auto")
    command.add_argument("--batch", type=int, default=64, help="samples: to count or diagnose")
    command.add_argument("--kernels", action="store_true", help="fused kernels, with their source")
    command.add_argument("--graph", action="store_true", help="the graphs instead of the costs")
    command.add_argument("--program", choices=PROGRAMS, help="the graph of this program alone")
    command.add_argument("--diagnose", choices=DIAGNOSES, help="its curvature on a batch")
    command.add_argument("--data", choices=DATA, help="of which a batch is diagnosed")
    command.add_argument(
        "--weights", type=Path, metavar="FILE", help="weights.safetensors of a run"
    )
    command.add_argument("--damping", type=float, help="γ, for alignment")
    command.add_argument("--of", choices=OF, help="the parameters of each layer, for errors")


def shape(text: str) -> tuple[int, ...]:
    """The sizes in "3x32x32"."""
    sizes = text.lower().split("x")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write it like 3x32x32 or 784")
    return tuple(map(int, sizes))


def _inspect(options: argparse.Namespace) -> None:
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
    """An error where options do not go together."""
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
    diagnosis, keywords = DIAGNOSES[options.diagnose], {}
    for name in ("damping", "of"):
        if (value := getattr(options, name)) is not None:
            if name not in diagnosis.keywords:
                raise NewtritonError(f"--{name} is not for {options.diagnose}")
            keywords[name] = value
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
    print(diagnosis.make(lin, **keywords))


def _add_check(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_check)
    command.add_argument("--gpu", action="store_true", help="run the kernels on a GPU")
    command.add_argument("--only", choices=("numbers", "code"), help="one half of the check")
    command.add_argument("--nets", nargs="+", default=["vgg11"], help="whose kernels to compile")
    command.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    command.add_argument("--targets", nargs="+", default=["sm_90"], help="sm_90, sm_80, gfx942")
    command.add_argument("--workers", type=int, default=os.cpu_count(), help="to compile with")
    command.add_argument("--json", type=Path, help="file for the lines as data")


def _check(options: argparse.Namespace) -> int:
    """Numbers and compilation in processes of their own: one interprets, the other compiles."""
    if options.only is None and not options.gpu:
        return max(_half(options, half) for half in ("numbers", "code"))
    from . import check  # noqa: PLC0415 - Triton only where it is used

    return check.run(options)


def _half(options: argparse.Namespace, half: str) -> int:
    """Runs one half of a check; its status."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if half == "numbers":
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "newtriton.command.main", "check", "--only", half]
    for name in ("nets", "precisions", "targets"):
        command += [f"--{name}", *getattr(options, name)]
    command += ["--workers", str(options.workers)]
    if options.json is not None:
        path = options.json.with_stem(f"{options.json.stem}-{half}")
        command += ["--json", str(path)]
    return subprocess.run(command, env=environment, check=False).returncode


def _add_bench(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_bench)
    command.add_argument("name", nargs="?", help="of the measurement; without it they are listed")
    command.add_argument("rest", nargs=argparse.REMAINDER, help="passed on to the measurement")


def _bench(options: argparse.Namespace) -> None:
    """Does what `python -m newtriton.bench.NAME` does."""
    modules = pkgutil.iter_modules(bench.__path__)
    names = [module.name for module in modules if not module.name.startswith("_")]
    if options.name is None:
        print("\n".join(names))
        return
    if options.name not in names:
        listed = ", ".join(names) or "there are none"
        raise NewtritonError(f"there is no measurement {options.name!r}: {listed}")
    sys.argv[1:] = options.rest
    runpy.run_module(f"{bench.__name__}.{options.name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.exit(main())
