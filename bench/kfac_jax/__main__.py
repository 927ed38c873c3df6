"""Updates that K-FAC, KFRA, FITRE and kfac-jax need on CURVES, from the same weights and batches.

The goal is the loss over all curves that the best of some rates of Adam has after its last update.
Ours run at their defaults. kfac-jax adapts rate, momentum and damping, as its README does for an
autoencoder, from several first dampings, and looks at ten batches before its first update. Its
losses are measured by our model, with its weights. Milliseconds are the median of updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, islice, repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn.functional import avg_pool2d

import newtriton as nt

from ...compiler.graph.errors import NewtritonError
from ...runtime.arguments import Parser
from .._measure import report
from ..first_order import METHODS, Adam

Row = dict[str, Any]
INSTALL = "pip install kfac-jax==0.0.8 'jax[cpu]==0.9.0'"  # jax 0.9.2 has changed under it


@dataclass(frozen=True)
class Task:
    """An autoencoder on CURVES.

    Attributes:
        x: the curves.
        hidden: the widths down to the code.
        batch_size: the samples in a batch.
        rates: Adam's rates.
    """

    x: torch.Tensor
    hidden: tuple[int, ...]
    batch_size: int
    rates: tuple[float, ...]

    def net(self) -> nt.Sequential:
        """Returns the autoencoder."""
        return nt.models.autoencoder(self.x.shape[1], hidden=self.hidden)

    def model(self, seed: int) -> nt.Model:
        """Returns the compiled autoencoder with the first weights of a seed."""
        shape = (self.x.shape[1],)
        return nt.compile(self.net(), shape, nt.BCEWithLogitsLoss(), device="cpu", seed=seed)

    def batches(self, seed: int) -> Iterator[torch.Tensor]:
        """Yields batches without end, in the order of a seed."""
        made = nt.Batches(self.x, self.x, self.batch_size, seed=seed, drop_last=True)
        return (x for x, _ in chain.from_iterable(repeat(made)))

    def loss(self, model: nt.Model) -> float:
        """Returns the loss over all curves."""
        return nt.evaluate(model, nt.Batches(self.x, self.x, 2000, shuffle=False))[0]


def full() -> Task:
    """Returns the paper's autoencoder and its 20,000 curves."""
    return Task(nt.curves().x, (1000, 500, 250, 30), 1000, (3e-4, 1e-3, 3e-3))


def small() -> Task:
    """Returns a tenth of the autoencoder, a code of 6, and 2,000 curves of 14×14 pixels."""
    x = avg_pool2d(nt.curves(2000).x.view(-1, 28, 28), 2).flatten(1)
    return Task(x, (100, 50, 25, 6), 250, (2.0**-8, 2.0**-7, 2.0**-6))


def trained(
    task: Task,
    model: nt.Model,
    step: Callable[[torch.Tensor], None],
    updates: int,
    seed: int,
    goal: float = -float("inf"),
    every: int = 5,
) -> Row:
    """Makes all updates, or as many as the goal takes, and says how many and what they took."""
    seconds, loss, update = list[float](), float("inf"), 0
    for update, x in enumerate(islice(task.batches(seed), updates), 1):
        start = time.perf_counter()
        step(x)
        seconds.append(time.perf_counter() - start)
        if update % every == 0 or update == updates:
            loss = task.loss(model)
            if loss <= goal:
                break
    milliseconds = round(1e3 * median(seconds), 2)
    return {"updates": update, "median_ms": milliseconds, "loss": float(f"{loss:.4g}")}


def ours(task: Task, make: Callable[[nt.Model], Any], *run: Any) -> Row:
    """Trains with an optimizer of newtriton; further arguments are those of `trained`."""
    model = task.model(run[1])
    optimizer = make(model)
    return trained(task, model, lambda x: optimizer.step(x, x), *run)


def theirs(task: Task, damping: float, *run: Any) -> Row:
    """Trains with kfac-jax from a first damping.

    Raises:
        NewtritonError: kfac-jax or jax is not installed.
    """
    jax, kfac = installed()
    model, np, seed = task.model(run[1]), jax.numpy, run[1]
    linear = [isinstance(layer, nt.Linear) for layer in task.net().layers]
    params = {  # kfac-jax finds layers by a @ W + b
        name: np.asarray((t.mT if t.ndim == 2 else t).numpy())
        for name, t in model.unflatten(model.params).items()
    }

    def loss(params: dict[str, Any], x: Any) -> Any:
        z = x
        for i, is_linear in enumerate(linear):
            w, b = (params.get(f"{i}.{part}") for part in ("weight", "bias"))
            z = z @ w + b if is_linear else jax.nn.sigmoid(z)
        kfac.register_multi_bernoulli_predictive_distribution(z, x)
        return (jax.nn.softplus(z) - z * x).sum(1).mean()

    optimizer = kfac.Optimizer(
        value_and_grad_func=jax.value_and_grad(loss),
        l2_reg=0.0,
        use_adaptive_learning_rate=True,
        use_adaptive_momentum=True,
        use_adaptive_damping=True,
        initial_damping=damping,
    )
    key = jax.random.PRNGKey(seed)
    first = (np.asarray(x.numpy()) for x in task.batches(seed))
    state = optimizer.init(params, key, next(first))
    given = list[Any]()
    # The burn-in takes its batches from the iterator, and so does the first update after it.
    stream = chain(islice(first, 10), (given.pop() for _ in repeat(None)))

    def step(x: torch.Tensor) -> None:
        nonlocal params, state
        given.append(np.asarray(x.numpy()))
        drawn = jax.random.fold_in(key, int(state.step_counter))
        params, state, _ = optimizer.step(params, state, drawn, data_iterator=stream)
        for name, value in model.named_parameters():
            found = torch.tensor(jax.device_get(params[name]))
            value.copy_(found.mT if found.ndim == 2 else found)

    return trained(task, model, step, *run)


def installed() -> tuple[Any, Any]:
    """Returns the modules jax and kfac_jax.

    Raises:
        NewtritonError: one of them is not installed.
    """
    try:
        return import_module("jax"), import_module("kfac_jax")
    except ImportError as error:
        raise NewtritonError(f"the comparison needs kfac-jax ({error}): {INSTALL}") from error


def compare(
    task: Task, updates: int, dampings: list[float], seed: int, keep: Callable[[Row], None]
) -> None:
    """Runs Adam for the goal, then ours and theirs; `keep` takes every row when it is made."""
    installed()
    losses: dict[float, float] = {}
    for rate in task.rates:
        row = ours(task, lambda model, rate=rate: Adam(model, rate, updates), updates, seed)
        losses[rate] = row["loss"]
        keep({"seed": seed, "method": f"Adam, {rate:.3g}", **row})
    goal = min(losses.values())
    runs: dict[str, Callable[[], Row]] = {
        **{name: lambda make=make: ours(task, make, updates, seed, goal)
           for name, make in METHODS.items()},
        **{f"kfac-jax, damping {damping:g}": lambda d=damping: theirs(task, d, updates, seed, goal)
           for damping in dampings},
    }  # fmt: skip
    for name, run in runs.items():
        row = run()
        keep({"seed": seed, "method": name, **row, "goal": goal, "reached": row["loss"] <= goal})


def main() -> None:
    """Prints the rows after every run."""
    parser = Parser(prog="newtriton bench kfac_jax", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the paper's autoencoder and curves")
    parser.add_argument("--updates", type=int, default=500, help="of Adam, and at most of others")
    parser.add_argument(
        "--dampings", type=float, nargs="+", default=[0.01, 0.1, 1.0], help="of kfac-jax at first"
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … K − 1")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    options = parser.parse_args()
    task, rows = full() if options.full else small(), list[Row]()

    def keep(row: Row) -> None:
        rows.append(row)
        report(rows, options.json)

    for seed in range(options.seeds):
        compare(task, options.updates, options.dampings, seed, keep)


if __name__ == "__main__":
    main()
