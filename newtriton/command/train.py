"""`newtriton train`: trains a network on data and keeps the run in a folder."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..compiler.graph.options import check_count
from ..compiler.language.inputs import InputSpec
from ..compiler.language.losses import CrossEntropyLoss
from ..compiler.language.trees import mapped
from ..runtime.data.samples import Batches
from ..runtime.model.compile import BACKENDS
from ..runtime.model.compile import compile as compile_network
from ..runtime.training.history import History
from ..runtime.training.loop import fit
from ..runtime.training.runs import RunFolder
from .catalogue import DATA, DEFAULT, NETWORKS, OPTIMIZERS, keywords_for, takers


def add_to(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.set_defaults(run=run)
    add = command.add_argument
    add("--data", choices=DATA, default="digits", help=f"the data to train on {DEFAULT}")
    add("--net", choices=NETWORKS, default="cnn", help=f"the network {DEFAULT}")
    add("--optimizer", choices=OPTIMIZERS, default="fitre", help=f"the optimizer {DEFAULT}")
    add(
        "--epochs",
        type=int,
        default=10,
        help=f"the length of the whole run {DEFAULT}",
    )
    add("--batch-size", type=int, default=128, help=f"samples in a batch {DEFAULT}")
    add("--damping", type=float, help=f"γ at the start, for {takers(OPTIMIZERS, 'damping')}")
    add("--radius", type=float, help=f"the largest radius, for {takers(OPTIMIZERS, 'radius')}")
    add("--lr", type=float, help=f"the learning rate, for {takers(OPTIMIZERS, 'lr')}")
    add(
        "--weight-decay", type=float, default=0.0, metavar="λ",
        help=f"λ of the loss, which every optimizer sees {DEFAULT}",
    )  # fmt: skip
    add("--seed", type=int, default=0, help=f"the seed of weights and order of the data {DEFAULT}")
    add("--backend", choices=BACKENDS, default="auto", help=f"what runs the programs {DEFAULT}")
    add("--output", type=Path, required=True, metavar="DIR", help="the folder of the run")
    add("--resume", action="store_true", help="go on with the run in DIR")


def run(options: argparse.Namespace) -> None:
    """Trains, prints a row per epoch, and leaves history, picture and weights in the folder."""
    check_count("--epochs", options.epochs)
    keywords = keywords_for(options, "optimizer", OPTIMIZERS)
    train, validation = DATA[options.data]()
    model = compile_network(
        NETWORKS[options.net](),
        input_shape=mapped(InputSpec.of, train.x),
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
        """Keeps the run as it is now, and prints the epoch's row."""
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


def _run_options(options: argparse.Namespace) -> Mapping[str, Any]:
    """Returns the options that have to be the same when a run goes on."""
    free = ("run", "epochs", "output", "resume")
    return {name: value for name, value in vars(options).items() if name not in free}


def _row(history: History) -> str:
    """Returns the last epoch as a row of the table."""
    epoch = history.epochs[-1]
    return (
        f"{epoch.number:5}  {epoch.loss:9.4f}  {epoch.validation_loss:9.4f}  "
        f"{epoch.validation_accuracy:8.2%}  {epoch.seconds:8.1f}"
    )
