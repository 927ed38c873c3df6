"""`newtriton inspect`: shows what a network compiles to, or its curvature on a batch of data."""

import argparse
import os
from pathlib import Path

import torch
from safetensors.torch import load

from ..compiler.graph.errors import NewtritonError
from ..compiler.graph.options import check_count
from ..compiler.graph.program import Program
from ..runtime.charting.saving import save
from ..runtime.charting.spectra import picture
from ..runtime.data.samples import Batches
from ..runtime.diagnostics.errors import OF
from ..runtime.diagnostics.linearized_data import LinearizedData
from ..runtime.disk import read
from ..runtime.drawing.page import page
from ..runtime.drawing.programs import pictures
from ..runtime.drawing.svg import svg
from ..runtime.inputs.batches import moved
from ..runtime.model.linearized import Linearized
from .catalogue import DEFAULT, DIAGNOSES, PROGRAMS, keywords_for, takers
from .data import add_data, data
from .networks import LOSS, add_network, model_of

ALL = "all"  # programs
DRAWN = "density"  # what is diagnosed and can be drawn
INTERPRET = "TRITON_INTERPRET"


def add_to(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.set_defaults(run=run)
    add = command.add_argument
    add_network(command, None)
    add("--input", type=shape, metavar="CxHxW", help="the size of a sample, without --diagnose")
    add(
        "--batch", type=int, default=64,
        help=f"how many samples costs are counted for, or are diagnosed {DEFAULT}",
    )  # fmt: skip
    add("--kernels", action="store_true", help="beside the costs, show fused kernels with source")
    add("--graph", action="store_true", help="show the graphs of all programs instead of the costs")
    add(
        "--program", choices=(*PROGRAMS, ALL),
        help="show the graph of this program alone, or draw it; all: of each of them, on a page",
    )  # fmt: skip
    drawn = "(default: the program linearize)"
    add("--svg", type=Path, metavar="FILE", help=f"draw kernels and memory of a program {drawn}")
    add(
        "--html", type=Path, metavar="FILE",
        help=f"a page with the same picture, and the source of every kernel {drawn}",
    )  # fmt: skip
    add("--diagnose", choices=DIAGNOSES, help="show this of the curvature on a batch")
    add_data(command, None, "what is diagnosed, for --diagnose")
    add(
        "--all", action="store_true",
        help="diagnose all training data, in batches of --batch, in place of the first one",
    )  # fmt: skip
    add(
        "--weights", type=Path, metavar="FILE",
        help="the weights.safetensors of a run, for --diagnose (default: the first weights)",
    )  # fmt: skip
    add("--damping", type=float, help=f"γ, for --diagnose {takers(DIAGNOSES, 'damping')}")
    add(
        "--set", action="append", metavar="NAME=VALUE",
        help="a keyword of what is diagnosed, such as vectors=4 of density; may be repeated",
    )  # fmt: skip
    add("--plot", type=Path, metavar="FILE", help=f"draw what is diagnosed, for --diagnose {DRAWN}")
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
    torch.manual_seed(0)  # a user's file may draw weights
    if options.diagnose:
        return _diagnose(options)
    if options.svg or options.html:
        return _draw(options)
    if not (options.graph or options.program):
        if options.backend == "triton" and not torch.cuda.is_available():
            os.environ[INTERPRET] = "1"  # kernels are planned and printed, and none is run
        print(model_of(options, shape=options.input).explain(options.batch, options.kernels))
        return
    programs = model_of(options, shape=options.input, backend="aten").programs[True]
    for name in PROGRAMS if options.program in (None, ALL) else [options.program]:
        print(PROGRAMS[name](programs))


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Returns the weights of a file by their names.

    Raises:
        NewtritonError: it cannot be read, or holds none.
    """
    if path.is_dir():
        raise NewtritonError(f"{path} is a folder: name the weights.safetensors of a run")
    data = read(path)
    try:
        return load(data)
    except Exception as error:  # safetensors and PyTorch raise whatever they stumble over
        raise NewtritonError(
            f"{path} holds no weights ({error}): give a file of safetensors, as a run leaves it, "
            "or safetensors.torch.save_file makes it of a state_dict"
        ) from error


def _check_inspect(options: argparse.Namespace) -> None:
    """Raises an error where options do not go together."""
    needed, unfit = (
        "input",
        ("data", "data_dir", "preprocessing", "all", "weights", "damping", "of", "set", "plot"),
    )
    if options.diagnose:
        needed, unfit = "data", ("input", "graph", "program", "kernels", "svg", "html")
    which = "with" if options.diagnose else "without"
    for name in unfit:
        value = getattr(options, name)
        if value is not None and value is not False:
            option = name.replace("_", "-")
            raise NewtritonError(f"--{option} means nothing {which} --diagnose")
    if getattr(options, needed) is None:
        raise NewtritonError(f"--{needed} is needed {which} --diagnose")


def _draw(options: argparse.Namespace) -> None:
    """Writes pictures of programs: a file of one, or a page."""
    for name in ("graph", "kernels"):
        if getattr(options, name):
            raise NewtritonError(f"--{name} prints, and --svg and --html draw: give one of them")
    if options.svg and options.program == ALL:
        raise NewtritonError("--svg draws one program: give its --program, or --html for all")
    batch = check_count("--batch", options.batch)
    runs = options.backend == "triton" and (torch.cuda.is_available() or interpreted())
    model = model_of(options, shape=options.input, backend="triton" if runs else "aten")
    shown, notes = list[Program](), list[str]()
    for name in PROGRAMS if options.program == ALL else [options.program or "linearize"]:
        try:
            shown.append(PROGRAMS[name](model.programs[True]))
        except NewtritonError as error:
            if options.program != ALL:
                raise
            notes.append(f"{name}: {error}")
    fused = None if options.backend == "auto" else options.backend == "triton"
    found = list(pictures(model, shown, batch, fused))
    if options.svg:
        options.svg.write_text(svg(found[0]), encoding="utf-8")
    if options.html:
        unasked = ", the default" if options.loss == LOSS else ""
        title = f"{options.net} with loss {options.loss}{unasked}"
        options.html.write_text(page(found, title, notes), "utf-8")


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, in this process."""
    return os.environ.get(INTERPRET) == "1"


def _diagnose(options: argparse.Namespace) -> None:
    """Prints a diagnosis on training data, in float64."""
    entry = DIAGNOSES[options.diagnose]
    keywords = keywords_for(options, "diagnose", DIAGNOSES)
    keywords |= entry.read(options.set or [], options.diagnose)
    if options.plot and options.diagnose != DRAWN:
        raise NewtritonError(f"--plot is for --diagnose {DRAWN}, and not for {options.diagnose}")
    train, _ = data(options)
    model = model_of(options, train, dtype=torch.float64)
    if options.weights is not None:
        model.load_state_dict(weights(options.weights))
    batches = Batches(*train, options.batch)
    if options.all:
        lin: Linearized = LinearizedData(model, batches)
    else:
        lin = model.linearize(*moved(next(iter(batches)), model))
    found = entry(lin, **keywords)
    if options.plot:
        save(picture([*found.values()]), options.plot)
    print(found)
