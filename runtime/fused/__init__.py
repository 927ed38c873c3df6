"""Running graphs as fused Triton kernels: choosing, compiling, launching, replaying them."""
