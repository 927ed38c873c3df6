"""Running graphs as fused Triton kernels: choosing, compiling, launching, replaying them."""

from ..versions import require

require("triton")
