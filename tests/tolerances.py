"""One table of tolerances: relative error of norms, by dtype, for programs against autograd."""

import torch
from torch import Tensor

RELATIVE = {torch.float64: 1e-10, torch.float32: 2e-5}

# Of whole programs in float32 arithmetic against float64, by the precision of operands. A rounded
# operand that falls to the other side of a boundary changes a result by that precision.
LIMITS = {"ieee": 2e-5, "tf32x3": 5e-5, "tf32": 2e-3, "bf16": 2e-2}


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Returns ‖value − expected‖ / ‖expected‖, and ‖value‖ where the expected value is zero."""
    difference = float((value - expected).detach().double().norm())
    norm = float(expected.detach().double().norm())
    return difference / norm if norm else difference


def assert_close(value: Tensor, expected: Tensor, what: str = "value") -> None:
    """Fails where the relative error is above its limit, and says both."""
    assert value.shape == expected.shape, f"{what}: {tuple(value.shape)} ≠ {tuple(expected.shape)}"
    error, limit = relative_error(value, expected), RELATIVE[expected.dtype]
    assert error <= limit, f"{what}: relative error {error:.2e} > {limit:.0e}"
