"""The table at the front door: where newtriton is ahead of what one would pick, and where not.

Its rows are chosen for the questions that a reader has, once, whatever the answers are; they stand
in the order of the ratios that the files give, so that what falls behind moves down by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from .._problems import PROBLEMS
from .._scores import counts, ungrouped
from .lines import ms, table, times
from .queries import evaluate
from .results import Results

FORM, HVP = "gradient + quadratic form", "gradient + hvp"
FORM_TITLE, HVP_TITLE = "gradient and vᵀHv", "gradient and Hv"


@dataclass(frozen=True)
class Question:
    """A comparison of two times.

    Attributes:
        what: the work, and where it was done.
        ours: the query that finds our milliseconds, or seconds, of which the median counts.
        rival: what one would pick instead.
        theirs: the query that finds its time, the fastest of the calls that do the same.
        unit: "ms", or "s".
    """

    what: str
    ours: str
    rival: str
    theirs: str
    unit: str = "ms"


def _second_order(what: str, rows: str, rival: str, call: str, their: str) -> Question:
    """Returns a question of `bench second_order`: our call, beside the fastest of theirs."""
    ours = f'{rows} call="newtriton: {call}" median .median_ms'
    return Question(what, ours, rival, f"{rows} call={their} min .median_ms")


EAGER_HVP = '"eager: hvp"|"eager, channels last: hvp"'
ANY_HVP = f'{EAGER_HVP}|"compiled: hvp, forward over reverse"|"compiled: hvp, reverse over forward"'
ANY_GRADIENT = '"eager: gradient"|"eager, channels last: gradient"|"compiled: gradient"'
EAGER, BEST = "eager PyTorch", "eager or compiled PyTorch"
VGG11_GPU, GPT_GPU = "gpu-second-order net=vgg11 run=3", "gpu-second-order net=gpt run=1"
GPT_CPU, RESNET = "cpu-second-order-captured net=gpt", "cpu-second-order-captured net=resnet20"

QUESTIONS = (
    _second_order(f"{FORM_TITLE}: GPT, H200", GPT_GPU, EAGER, FORM, EAGER_HVP),
    _second_order(f"{HVP_TITLE}: GPT, H200", GPT_GPU, EAGER, HVP, EAGER_HVP),
    _second_order("gradient: GPT, H200", GPT_GPU, EAGER, "gradient", '"eager: gradient"'),
    _second_order(f"{FORM_TITLE}: VGG11, H200", VGG11_GPU, EAGER, FORM, EAGER_HVP),
    _second_order(f"{HVP_TITLE}: VGG11, H200", VGG11_GPU, EAGER, HVP, EAGER_HVP),
    _second_order("gradient: VGG11, H200", VGG11_GPU, EAGER, "gradient", ANY_GRADIENT),
    _second_order(f"{FORM_TITLE}: GPT, CPU", GPT_CPU, BEST, FORM, ANY_HVP),
    _second_order(f"{HVP_TITLE}: GPT, CPU", GPT_CPU, BEST, HVP, ANY_HVP),
    _second_order("gradient: ResNet-20, CPU", RESNET, BEST, "gradient", ANY_GRADIENT),
    _second_order(
        "gradient and K-FAC factors: ResNet-20, CPU", RESNET, "PyTorch and curvlinops",
        "gradient + factors", '"curvlinops: gradient + factors"',
    ),
    Question(
        "a K-FAC update: small autoencoder, CPU", "cpu-kfac-jax method=KFAC median .median_ms",
        "kfac-jax", 'cpu-kfac-jax method="kfac-jax, damping 0.01" median .median_ms',
    ),
)  # fmt: skip


def front(results: Results) -> Iterator[str]:
    """Yields the table, the largest ratio first; bold is where newtriton is behind."""
    found = []
    for question in QUESTIONS:
        ours, theirs = (median(evaluate(q, results)) for q in (question.ours, question.theirs))
        if question.unit == "ms":
            shown = ms(ours), ms(theirs)
        else:
            shown = f"{ours:.2f} s", f"{theirs:.2f} s"
        cells = [question.what, shown[0], f"{shown[1]}, {question.rival}", times(theirs, ours)]
        found.append((theirs / ours, cells))
    found.sort(key=lambda pair: -pair[0])
    rows = [cells for _, cells in found]
    yield from table(
        ["", "newtriton", "what one would pick instead", ""], [*rows, *_ahead(results)]
    )


def _ahead(results: Results) -> Iterator[list[str]]:
    """Yields a line a preset: on how many problems it ends lower, and on how many it is faster."""
    rows = [*ungrouped(results.rows("battery"))]
    for name, title in (("fitre", "FITRE"), ("kfac", "K-FAC")):
        _, lower, _, sooner, _ = counts(rows, PROBLEMS, name)
        yield [
            f"27 small problems, {title} as it comes", f"lower end loss on {lower}",
            "Adam, the best rate of a grid", f"fewer seconds on {sooner}",
        ]  # fmt: skip
