"""Networks in JAX, from descriptions that need neither PyTorch nor newtriton.

A description is a nested tuple: a kind, then what it is made of; parameters go by their names in
PyTorch. Images are N×H×W×C, weights of convolutions H×W×I×O, those of linear layers D×O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Params = Mapping[str, Any]


class Forward:
    """The forward pass of a description.

    Args:
        jax: the module.
    """

    def __init__(self, jax: Any) -> None:
        self.jax, self.np = jax, jax.numpy

    def __call__(self, described: Sequence[Any], params: Params, x: Any) -> Any:
        """Returns the outputs for inputs x."""
        kind, *rest = described
        return getattr(self, f"_{kind}")(params, x, *rest)

    def _sequence(self, params: Params, x: Any, *parts: Any) -> Any:
        for part in parts:
            x = self(part, params, x)
        return x

    def _residual(self, params: Params, x: Any, body: Any, shortcut: Any) -> Any:
        return self(body, params, x) + self(shortcut, params, x)

    def _linear(self, params: Params, x: Any, name: str) -> Any:
        y = x @ params[f"{name}.weight"]
        bias = params.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _conv(self, params: Params, x: Any, name: str, stride: int, padding: int) -> Any:
        y = self.jax.lax.conv_general_dilated(
            x, params[f"{name}.weight"], (stride, stride), [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        bias = params.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _relu(self, params: Params, x: Any) -> Any:
        return self.jax.nn.relu(x)

    def _tanh(self, params: Params, x: Any) -> Any:
        return self.np.tanh(x)

    def _silu(self, params: Params, x: Any) -> Any:
        return self.jax.nn.silu(x)

    def _gelu(self, params: Params, x: Any) -> Any:
        return self.jax.nn.gelu(x, approximate=False)

    def _maxpool(self, params: Params, x: Any, size: int) -> Any:
        window = (1, size, size, 1)
        return self.jax.lax.reduce_window(
            x, -self.np.inf, self.jax.lax.max, window, window, "VALID"
        )

    def _mean_over_positions(self, params: Params, x: Any) -> Any:
        return x.mean((1, 2), keepdims=True)

    def _flatten(self, params: Params, x: Any) -> Any:
        return self.np.moveaxis(x, 3, 1).reshape(x.shape[0], -1)

    def _batchnorm(self, params: Params, x: Any, name: str, eps: float) -> Any:
        return self._normalised(params, x, name, eps, (0, 1, 2))

    def _layernorm(self, params: Params, x: Any, name: str, eps: float) -> Any:
        return self._normalised(params, x, name, eps, (-1,))

    def _normalised(
        self, params: Params, x: Any, name: str, eps: float, axes: tuple[int, ...]
    ) -> Any:
        centred = x - x.mean(axes, keepdims=True)
        scale = self.jax.lax.rsqrt((centred**2).mean(axes, keepdims=True) + eps)
        return centred * scale * params[f"{name}.weight"] + params[f"{name}.bias"]

    def _attention(self, params: Params, x: Any, heads: int, causal: bool) -> Any:
        batch, positions, width = x.shape[0], x.shape[1], x.shape[2] // 3
        shape = (batch, positions, heads, width // heads)
        q, k, v = (t.reshape(shape) for t in self.np.split(x, 3, axis=2))
        scores = self.np.einsum("bqhd,bkhd->bhqk", q, k) / self.np.sqrt(shape[-1])
        if causal:
            scores = self.np.where(
                self.np.tril(self.np.ones((positions, positions), bool)), scores, -self.np.inf
            )
        weights = self.jax.nn.softmax(scores, axis=-1)
        return self.np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, positions, width)

    def _words(self, params: Params, x: Any, words: str, places: str) -> Any:
        return params[f"{words}.weight"][x] + params[f"{places}.weight"][: x.shape[1]]

    def _scores_of_words(self, params: Params, x: Any, words: str) -> Any:
        return x @ params[f"{words}.weight"].T

    def _patches(self, params: Params, x: Any, name: str, size: int) -> Any:
        x = self._conv(params, x, name, size, 0)
        return x.reshape(x.shape[0], -1, x.shape[-1])

    def _token(self, params: Params, x: Any, token: str, places: str) -> Any:
        first = self.np.broadcast_to(params[token], (x.shape[0], 1, x.shape[2]))
        return self.np.concatenate([first, x], axis=1) + params[places]

    def _first_position(self, params: Params, x: Any) -> Any:
        return x[:, 0]
