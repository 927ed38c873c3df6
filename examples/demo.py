"""Two presets beside the best first-order method of a grid: two problems, tables and a picture.

The grid has learning rates of Nesterov SGD and Adam. Each is run on a part of the training samples
and scored on the rest: by mean accuracy where there are classes, then by mean loss. FITRE and K-FAC
run untuned. Validation samples choose nothing. Everything runs from several seeds, on one thread.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from problems import Method, Problem, curves, digits

import newtriton as nt
from newtriton.bench._measure import report

Histories: TypeAlias = dict[str, list[nt.History]]

PRESETS: dict[str, Method] = {"FITRE": nt.FITRE, "K-FAC": nt.KFAC}


def sgd(lr: float) -> Method:
    """Returns what makes Nesterov SGD at a learning rate."""
    return lambda model: nt.TorchOptimizer(
        model, torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True
    )


def adam(lr: float) -> Method:
    """Returns what makes Adam at a learning rate."""
    return lambda model: nt.TorchOptimizer(model, torch.optim.Adam, lr=lr)


GRID = {f"Nesterov SGD, lr {lr:g}": sgd(lr) for lr in (0.01, 0.03, 0.1, 0.3)} | {
    f"Adam, lr {lr:g}": adam(lr) for lr in (0.001, 0.003, 0.01, 0.03)
}


def last(runs: list[nt.History], field: str) -> list[float]:
    """Returns what the last epoch of each run has recorded in a field, or 0."""
    return [getattr(history.epochs[-1], field) or 0.0 for history in runs]


def pick(problem: Problem) -> str:
    """Returns the first-order method that does best on a fifth of the training data, held out."""
    data = nt.split(problem.data[0], 0.2, seed=1)
    scores = {}
    for name, method in GRID.items():
        try:
            runs = problem.run(method, data, problem.first_order_epochs)
        except nt.NewtritonError as error:
            print(f"{name:24} fails: {error}")
            continue
        accuracy, loss = (mean(last(runs, f"validation_{of}")) for of in ("accuracy", "loss"))
        scores[name] = (accuracy, -loss)
        shown = f"accuracy {accuracy:6.2%}, " if accuracy else ""
        print(f"{name:24} held out: {shown}loss {loss:.4g}")
    return max(scores, key=scores.__getitem__)


def compare(problem: Problem) -> Histories:
    """Runs the presets and the best first-order method, which comes last."""
    print(f"\n{problem.title}\n")
    best = pick(problem)
    runs = {
        name: problem.run(method, problem.data, problem.epochs) for name, method in PRESETS.items()
    }
    runs[best] = problem.run(GRID[best], problem.data, problem.first_order_epochs)
    print_table(problem, runs)
    return runs


def to_goal(problem: Problem, methods: Histories, name: str) -> list[int | None]:
    """Returns the epochs that each run of a method took to the goal."""
    *_, baseline = methods.values()
    return [problem.epochs_to_goal(*pair) for pair in zip(methods[name], baseline, strict=True)]


def print_table(problem: Problem, methods: Histories) -> None:
    """Prints means over the seeds, and what each seed took to the goal."""
    row = "{:24}{:>11}{:>17}{:>24}{:>9}   {}"
    goal = "the last method's loss" if problem.accuracy is None else f"{problem.accuracy:.0%}"
    names = ("", "train loss", "validation loss", "accuracy", "seconds", f"to {goal} (epochs)")
    print("\n" + row.format(*names))
    for name, runs in methods.items():
        shares = last(runs, "validation_accuracy")
        reached = [
            f"{history.epochs[number - 1].seconds:.2f} ({number})" if number else "never"
            for history, number in zip(runs, to_goal(problem, methods, name), strict=True)
        ]
        cells = (
            f"{mean(last(runs, 'loss')):.4g}",
            f"{mean(last(runs, 'validation_loss')):.4g}",
            f"{mean(shares):.2%} ({min(shares):.1%}–{max(shares):.1%})" if any(shares) else "–",
            f"{mean(history.seconds for history in runs):.1f}",
        )
        print(row.format(name, *cells, ", ".join(reached)))


def rows(problem: Problem, methods: Histories) -> list[dict[str, Any]]:
    """Returns the table as data: a row a method, with a list of its seeds' values by field."""
    return [
        {
            "problem": problem.title,
            "method": name,
            "epochs": len(runs[0].epochs),
            "loss": mean(last(runs, "loss")),
            "validation_loss": mean(last(runs, "validation_loss")),
            "accuracies": last(runs, "validation_accuracy"),
            "seconds": mean(history.seconds for history in runs),
            "epochs_to_goal": to_goal(problem, methods, name),
            "seconds_to_goal": [
                history.epochs[number - 1].seconds if number else None
                for history, number in zip(runs, to_goal(problem, methods, name), strict=True)
            ],
        }
        for name, runs in methods.items()
    ]


def draw(results: list[tuple[Problem, Histories]], path: Path) -> None:
    """Draws accuracy or training loss, a column a problem, against epochs and against seconds."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    rows = figure.subplots(2, len(results))
    for (problem, methods), upper, lower in zip(results, *rows, strict=True):
        upper.set_title(problem.title)
        for axes, measure in ((upper, "number"), (lower, "seconds")):
            draw_curves(axes, problem, methods, measure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_curves(axes: Axes, problem: Problem, methods: Histories, measure: str) -> None:
    """Draws a curve a run against a field of its epochs, a colour a method."""
    field, scale = (
        ("loss", "log") if problem.accuracy is None else ("validation_accuracy", "linear")
    )
    for index, (name, runs) in enumerate(methods.items()):
        for history in runs:
            at, values = (
                [getattr(epoch, of) for epoch in history.epochs] for of in (measure, field)
            )
            label = name if history is runs[0] else None
            axes.plot(at, values, marker=".", color=f"C{index}", label=label)
    axes.set(
        xlabel="epochs" if measure == "number" else measure,
        ylabel="training loss" if field == "loss" else "validation accuracy",
        yscale=scale,
    )
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()


def main() -> int:
    """Runs the comparisons and returns status 1 where a preset misses the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default="demo.png", help="where to save the picture")
    parser.add_argument("--json", type=Path, help="where to write the tables as data")
    options = parser.parse_args()
    torch.set_num_threads(1)  # small networks: threads would wait for each other longer than work

    results = [(problem, compare(problem)) for problem in (digits(), curves())]
    draw(results, options.output)
    print(f"\nThe curves are in {options.output}")
    report([row for result in results for row in rows(*result)], options.json, printed=False)

    missed = [
        f"{name} missed the goal on {problem.title}"
        for problem, methods in results
        for name in PRESETS
        if None in to_goal(problem, methods, name)
    ]
    for line in missed:
        print(line)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
