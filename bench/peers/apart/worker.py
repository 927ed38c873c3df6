"""The process that has JAX: it takes a problem, and then times and checks calls by their names.

It reads pickled messages and writes pickled answers, and needs neither PyTorch nor newtriton.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from importlib import import_module
from typing import Any

from .networks import Forward
from .resident import peak_of

PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Calls:
    """The calls on a problem, compiled when they are first made.

    Args:
        problem: what `with_jax.message` made.
    """

    def __init__(self, problem: dict[str, Any]) -> None:
        self.jax, self.kfac = import_module("jax"), import_module("kfac_jax")
        tree = partial(self.jax.tree_util.tree_map, self.jax.numpy.asarray)
        names = ("params", "u", "v", "w")
        self.params, self.u, self.v, self.w = (tree(problem[name]) for name in names)
        self.batch = tree((problem["x"], problem["y"]))
        self.described, self.damping = problem["described"], problem["damping"]
        self.forward = Forward(self.jax)
        self.key = self.jax.random.PRNGKey(0)
        self.samples = self.batch[0].shape[0]
        # kfac-jax sums the losses of a sample's labels, of which ours is the mean, and divides the
        # products of given labels' gradients by the batch size once more.
        self.scale = self.samples * self.samples / self.batch[1].size
        self.made: dict[str, Callable[[], Any]] = {}

    def loss(self, params: Any, batch: Any) -> Any:
        """Returns the mean cross entropy, whose logits kfac-jax is told."""
        x, y = batch
        z = self.forward(self.described, params, x)
        z, y = z.reshape(-1, z.shape[-1]), y.reshape(-1)
        self.kfac.register_softmax_cross_entropy_loss(z, y)
        scores = self.jax.nn.log_softmax(z)
        return -self.jax.numpy.take_along_axis(scores, y[:, None], axis=1).mean()

    def call(self, operation: str) -> Callable[[], Any]:
        """Returns what does an operation."""
        if operation not in self.made:
            self.made[operation] = getattr(self, f"_{operation}")()
        return self.made[operation]

    def _compiled(self, function: Callable[..., Any], *directions: Any) -> Callable[[], Any]:
        made = self.jax.jit(function)
        return lambda: made(self.params, self.batch, *directions)

    def _gradient(self) -> Callable[[], Any]:
        return self._compiled(self.jax.grad(self.loss))

    def _hvp(self) -> Callable[[], Any]:
        def hvp(params: Any, batch: Any, v: Any) -> Any:
            gradient = partial(self.jax.grad(self.loss), batch=batch)
            return self.jax.jvp(gradient, (params,), (v,))[1]

        return self._compiled(hvp, self.v)

    def _second(self, params: Any, batch: Any, u: Any, v: Any) -> Any:
        """Returns uᵀHv by two forward derivatives."""
        loss = partial(self.loss, batch=batch)
        return self.jax.jvp(lambda p: self.jax.jvp(loss, (p,), (u,))[1], (params,), (v,))[1]

    def _form(self) -> Callable[[], Any]:
        return self._compiled(lambda p, b, v: {"vHv": self._second(p, b, v, v)}, self.v)

    def _forms(self) -> Callable[[], Any]:
        def forms(p: Any, b: Any, u: Any, v: Any) -> Any:
            pairs = {"uHu": (u, u), "uHv": (u, v), "vHv": (v, v)}
            return {name: self._second(p, b, *pair) for name, pair in pairs.items()}

        return self._compiled(forms, self.u, self.v)

    def _ggnvp(self) -> Callable[[], Any]:
        exact = self.kfac.ImplicitExactCurvature(self.loss, batch_size_extractor=self._terms)
        return self._compiled(lambda p, b, v: exact.multiply_ggn((p, b), v), self.v)

    @staticmethod
    def _terms(batch: Any) -> int:
        """Returns by what kfac-jax divides the sum of the losses: one of each label."""
        return batch[1].size

    @cached_property
    def _estimator(self) -> Any:
        return self.kfac.BlockDiagonalCurvature(self.loss)

    @cached_property
    def _state(self) -> Any:
        given = self.key, (self.params, self.batch)
        return self._estimator.init(*given, exact_powers_to_cache=None, approx_powers_to_cache=None)

    def _factors(self, mode: str) -> Callable[[], Any]:
        def update(params: Any, batch: Any, state: Any, key: Any) -> Any:
            return self._estimator.update_curvature_matrix_estimate(
                state, 0.0, 1.0, 0.0, self.samples, key, (params, batch), mode
            )

        return self._compiled(update, self._state, self.key)

    def _kfac(self) -> Callable[[], Any]:
        return self._factors("fisher_gradients")

    @cached_property
    def _given(self) -> Any:
        """The factors of the given labels, `scale` times too small."""
        return self._factors("fisher_empirical")()

    def _inverse(self) -> Callable[[], Any]:
        def inverse(state: Any, v: Any) -> Any:
            damping = self.damping / self.scale
            found = self._estimator.multiply_inverse(
                state, v, damping, exact_power=False, use_cached=False, pmap_axis_name=None
            )
            return self.jax.tree_util.tree_map(lambda t: t / self.scale, found)

        made = self.jax.jit(inverse)
        return lambda: made(self._given, self.v)

    def _step(self) -> Callable[[], Any]:
        optimizer = self.kfac.Optimizer(
            value_and_grad_func=self.jax.value_and_grad(self.loss),
            l2_reg=0.0,
            use_adaptive_learning_rate=True,
            use_adaptive_momentum=True,
            use_adaptive_damping=True,
            initial_damping=1.0,
            num_burnin_steps=0,
        )
        copied = partial(self.jax.tree_util.tree_map, self.jax.numpy.array)
        params = copied(self.params)  # a step takes over the memory of what it gets
        held = {"params": params, "state": optimizer.init(params, self.key, self.batch)}

        def step() -> Any:
            held["params"], held["state"], told = optimizer.step(
                held["params"], held["state"], self.key, batch=copied(self.batch)
            )
            return told["loss"]

        return step

    def numbers(self, operation: str) -> dict[str, Any]:
        """Returns what an operation computes, by parameter or by another name."""
        if operation == "step":
            found = {"loss": self.jax.jit(self.loss)(self.params, self.batch)}
        elif operation == "kfac":
            product = self._estimator.multiply_matpower(
                self._given, self.w, 0.0, 1, exact_power=True, use_cached=False,
                pmap_axis_name=None,
            )  # fmt: skip
            found = {name: self.scale * t for name, t in product.items()}
        else:
            found = self.call(operation)()
        return {name: self.jax.device_get(t) for name, t in found.items()}

    def run(self, operation: str) -> float:
        """Returns the seconds of a call."""
        call = self.call(operation)
        start = time.perf_counter()
        self.jax.block_until_ready(call())
        return time.perf_counter() - start

    def peak(self, operation: str) -> int:
        """Returns the most bytes that a call takes once it is compiled."""
        self.run(operation)
        return peak_of(lambda: self.run(operation))


def versions() -> dict[str, str]:
    """Returns the versions of what calls need."""
    found = {"JAX": import_module("jax"), "kfac-jax": import_module("kfac_jax")}
    return {name: module.__version__ for name, module in found.items()}


def main() -> None:
    """Answers messages until there are no more."""
    answers, calls = os.fdopen(os.dup(1), "wb"), None
    os.dup2(2, 1)  # what libraries print is not for the other end
    with suppress(AttributeError, OSError):  # elsewhere than on Linux
        # It ends with who has made it, though it be stopped then.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: int(sys.argv[1])])
    with suppress(EOFError):
        while True:
            what, given = pickle.load(sys.stdin.buffer)
            try:
                if what == "take":
                    calls, answer = Calls(given), None
                elif what == "versions":
                    answer = versions()
                else:
                    answer = getattr(calls, what)(given)
            except Exception as error:
                text = str(error) or type(error).__name__
                pickle.dump((False, (type(error).__name__, text)), answers)
            else:
                pickle.dump((True, answer), answers)
            answers.flush()
