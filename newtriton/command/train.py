"""`newtriton train`: trains a network on data and keeps the run in a folder."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..compiler.graph.errors import NewtritonError, one_line
from ..compiler.graph.options import check_count, check_number
from ..compiler.language.trees import rows
from ..compiler.programs import MATRICES
from ..runtime.data.samples import Batches, Samples
from ..runtime.diagnostics.densities import density
from ..runtime.diagnostics.linearized_data import LinearizedData
from ..runtime.inputs.batches import moved
from ..runtime.inputs.data import check_labels, read_checked
from ..runtime.model.model import Model
from ..runtime.parallel.data_parallel import launched
from ..runtime.reporting.reading import SPECTRUM
from ..runtime.reporting.report import report
from ..runtime.training.history import History
from ..runtime.training.loop import fit
from ..runtime.training.runs import RunFolder
from ..runtime.training.saving import RESUME
from .catalogue import DEFAULT, OPTIMIZERS, keywords_for, takers
from .configuration import Twin, expanded
from .data import add_data, data
from .keywords import Part
from .networks import add_network, model_of
from .trackers import add_track, trackers

# What may change when a run goes on; keywords are compared by their values, not as text.
FREE = (
    *("run", "config", "epochs", "output", "resume", "threads", "data_dir", "set"),
    *("checkpoint_every", "keep", "micro_batch", "timeout", "memory"),
    *("report", "spectrum", "track"),
)
REPORT = "report.html"  # the page in the folder of a run
VALIDATED = 500  # samples of a batch that is validated
COLUMNS = {"epoch": 5, "loss": 9, "val. loss": 9, "accuracy": 8, "refused": 7, "seconds": 8}


def add_to(command: argparse.ArgumentParser, arguments: Sequence[str] = ()) -> None:
    """Adds the options of the command; its help has the keywords of the optimizer in `arguments`.

    Args:
        command: the command's parser.
        arguments: the arguments that are going to be parsed.
    """
    command.set_defaults(run=run)
    add_options(command)
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = _keywords_of(_optimizer_in(arguments))


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = command.add_argument
    add_data(command, "digits")
    add_network(command, "cnn")
    add("--optimizer", choices=OPTIMIZERS, default="fitre", help=f"the optimizer {DEFAULT}")
    add(
        "--set", action="append", metavar="NAME=VALUE",
        help="a keyword of the optimizer; may be repeated. `newtriton train --optimizer NAME "
        "--help` lists them with their defaults",
    )  # fmt: skip
    add("--epochs", type=int, default=10, help=f"the length of the whole run {DEFAULT}")
    add("--batch-size", type=int, default=128, help=f"samples in a batch {DEFAULT}")
    add(
        "--micro-batch", type=int, metavar="K",
        help="the most samples that are taken at once: larger batches are taken in pieces whose "
        "sums are those of the batch (default: all)",
    )  # fmt: skip
    add("--damping", type=float, help=f"γ at the start, for {takers(OPTIMIZERS, 'damping')}")
    add("--radius", type=float, help=f"the largest radius, for {takers(OPTIMIZERS, 'radius')}")
    add("--lr", type=float, help=f"the learning rate, for {takers(OPTIMIZERS, 'lr')}")
    add(
        "--weight-decay", type=float, default=0.0, metavar="λ",
        help=f"λ of the loss, which every optimizer sees {DEFAULT}",
    )  # fmt: skip
    add(
        "--average", action="store_true",
        help="validate and save the Polyak average of the weights that the optimizer keeps",
    )  # fmt: skip
    add("--seed", type=int, default=0, help=f"the seed of weights and order of the data {DEFAULT}")
    add(
        "--timeout", type=float, metavar="SECONDS",
        help="on ranks that torchrun starts: how long they wait for one that does not answer, "
        "before the run ends on all (default: PyTorch's, half an hour on CPUs)",
    )  # fmt: skip
    add(
        "--memory", default="replicated", metavar="RANKS",
        help="on ranks that torchrun starts: which of them hold a layer's factors, replicated, "
        f"owned, or a fraction of them {DEFAULT}",
    )  # fmt: skip
    add("--threads", type=int, help="threads on the CPU (default: PyTorch's)")
    add(
        "--config", type=Path, metavar="FILE",
        help="a TOML file of options by their long names, which those given here override; the "
        "optimizer's keywords are its table [set]",
    )  # fmt: skip
    needed = not isinstance(command, Twin)
    add("--output", type=Path, required=needed, metavar="DIR", help="the folder of the run")
    add(
        "--resume", nargs="?", const="last", default="never", choices=RESUME, metavar="WHICH",
        help="go on with the run in DIR: from what was saved last, or with `previous` before that, "
        "with `best` at the lowest validation loss; with `auto`, begin it where there is none "
        "(default: never)",
    )  # fmt: skip
    add(
        "--checkpoint-every", metavar="STEPS|TIME",
        help="save in the middle of an epoch too, every so many steps, or every 30s, 10m, 2h",
    )  # fmt: skip
    add("--keep", type=int, default=2, help=f"saved states that are kept, and the best {DEFAULT}")
    add_track(command)
    add(
        "--spectrum", nargs="?", const="hessian", choices=MATRICES, metavar="MATRIX",
        help="take the density of the spectrum on all training data at the end, hessian or ggn, "
        "for the report",
    )  # fmt: skip
    add(
        "--report", action=argparse.BooleanOptionalAction, default=True,
        help=f"write DIR/report.html at the end {DEFAULT}",
    )  # fmt: skip


def arguments_with_file(arguments: Sequence[str]) -> list[str]:
    """Returns the command's arguments with those of their --config."""
    return expanded(arguments, add_options)


def run(options: argparse.Namespace) -> int:
    """Trains, prints a row per epoch, and leaves history, picture and weights in the folder.

    Returns:
        the exit status: 130 where Ctrl-C ended the run.
    """
    check_count("--epochs", options.epochs)
    check_count("--keep", options.keep)
    if options.threads is not None:
        torch.set_num_threads(check_count("--threads", options.threads))
    torch.manual_seed(check_count("--seed", options.seed, 0))  # a user's file may draw weights
    keywords = _keywords(options)
    if options.timeout is not None:
        check_number("--timeout", options.timeout, above=0.0)
    parallel = launched(timeout=options.timeout, memory=_number_or_text(options.memory))
    if options.spectrum is not None and parallel is not None and not parallel.ranks.alone:
        raise NewtritonError("--spectrum is taken by one process: resume the run without torchrun")
    train, validation = data(options)
    first = parallel is None or parallel.ranks.rank == 0
    model = model_of(
        options, train, weight_decay=options.weight_decay, seed=options.seed, parallel=parallel
    )
    optimizer = OPTIMIZERS[options.optimizer](model, **keywords)
    for part in (train, validation):
        _check(model, part)
    followers = trackers(options.track, options.output)
    validated = min(VALIDATED, options.micro_batch or VALIDATED)
    history = fit(
        model,
        optimizer,
        Batches(*train, options.batch_size, seed=options.seed, parallel=parallel),
        Batches(*validation, validated, shuffle=False, parallel=parallel),
        options.epochs,
        progress=sys.stderr.isatty(),
        callbacks=[_Table(), *followers] if first else [],
        average=options.average,
        checkpoint=RunFolder(
            options.output, _run_options(options), _run_options(_defaults()), options.keep
        ),
        checkpoint_every=options.checkpoint_every,
        resume=options.resume,
    )
    if history.interrupted:
        print("interrupted: --resume goes on with it")
        return 130
    if options.spectrum is not None:
        take_spectrum(options, model, optimizer, Batches(*train, validated, parallel=parallel))
    if not first:
        return 0
    history.plot(options.output / "plot.png", against=("epochs", "seconds"))
    written = "history, picture and weights"
    if options.report:
        report({options.output.resolve().name: options.output}, options.output / REPORT)
        written = f"history, picture, {REPORT} and weights"
    print(f"{written} are in {one_line(str(options.output))}")
    return 0


def take_spectrum(options: argparse.Namespace, model: Model, optimizer: Any, data: Batches) -> None:
    """Takes the density of a spectrum on all data, and keeps it in the folder of the run."""
    average = optimizer.average.in_place(model) if options.average else nullcontext()
    with average:
        found = density(LinearizedData(model, data), options.spectrum)
    if model.ranks.rank == 0:
        found.save(options.output / SPECTRUM)


class _Table:
    """A callback that prints an epoch's row, the first one under a header."""

    def __init__(self) -> None:
        self.begun = False

    def __call__(self, history: History) -> None:
        """Prints the last epoch's row."""
        if not self.begun:
            tqdm.write("  ".join(title.rjust(width) for title, width in COLUMNS.items()))
        self.begun = True
        tqdm.write(_row(history))


def _keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the optimizer's keywords, from options of their own and from --set."""
    entry = OPTIMIZERS[options.optimizer]
    short = keywords_for(options, "optimizer", OPTIMIZERS)
    if options.micro_batch is not None:
        short["micro_batch"] = check_count("--micro-batch", options.micro_batch)
    given = entry.read(options.set or [], options.optimizer)
    for option, keyword in {**entry.keywords, "micro-batch": "micro_batch"}.items():
        if keyword in short.keys() & given.keys():
            raise NewtritonError(f"--{option} is --set {keyword}=…: give one of them")
    return {**short, **given}


def _check(model: Model, samples: Samples) -> None:
    """Raises an error where the first samples, or labels in memory, are none that are taken."""
    traced, (x, y) = model.programs[True].traced, samples
    few = moved((rows(x, slice(VALIDATED)), rows(y, slice(VALIDATED))), model)
    read_checked(model.check(traced, *few).demands)
    if isinstance(y, Tensor):
        labels = y.to(model.device, few[1].dtype)
        read_checked(check_labels(traced, labels, len(y), model.dtype, model.device)[1])


def _optimizer_in(arguments: Sequence[str]) -> str:
    """Returns the optimizer that arguments name, the default one if they name none."""
    first = Twin()
    first.add_argument("--optimizer")
    found = first.parse_known_args(arguments)[0].optimizer
    return found if found in OPTIMIZERS else _defaults().optimizer


def _keywords_of(optimizer: str) -> str:
    """Returns the keywords of an optimizer, for the end of the help text."""
    return f"keywords of {optimizer}, for --set:\n{OPTIMIZERS[optimizer].listed()}"


def _defaults() -> argparse.Namespace:
    """Returns what the options are unless given."""
    twin = Twin()
    add_options(twin)
    return twin.parse_args([])


def _run_options(options: argparse.Namespace) -> Mapping[str, Any]:
    """Returns the options that have to be the same when a run goes on."""
    kept = {name: value for name, value in vars(options).items() if name not in FREE}
    settings = OPTIMIZERS[options.optimizer].read(options.set or [], options.optimizer)
    return {**kept, "set": {name: _plain(value) for name, value in settings.items()}}


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it, a function by its name, a part by what was given."""
    if isinstance(value, Part):
        return value.text
    if callable(value):
        return getattr(value, "__qualname__", repr(value))
    return list(value) if isinstance(value, tuple) else value


def _number_or_text(text: str) -> float | str:
    """Returns the number that a text is, or the text."""
    try:
        return float(text)
    except ValueError:
        return text


def _row(history: History) -> str:
    """Returns the last epoch as a row of the table."""
    epoch = history.epochs[-1]
    accuracy = epoch.validation_accuracy
    cells = (
        f"{epoch.number}", f"{epoch.loss:.3g}", f"{epoch.validation_loss:.3g}",
        "–" if accuracy is None else f"{accuracy:.2%}", f"{history.refused(epoch.number)}",
        f"{epoch.seconds:.1f}",
    )  # fmt: skip
    return "  ".join(cell.rjust(w) for cell, w in zip(cells, COLUMNS.values(), strict=True))
