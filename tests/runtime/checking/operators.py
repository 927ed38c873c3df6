"""PyTorch's float32 operators in the place of kernels: what is right by definition."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.graph.ir import Graph, Node, concrete, topological
from newtriton.compiler.lowering.codegen import LaunchCode
from newtriton.compiler.lowering.kernel import Kernel
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from newtriton.runtime.checking.isolation import computed_by
from newtriton.runtime.fused import pipeline
from newtriton.runtime.fused.call import Memory
from newtriton.runtime.fused.launch import Generated, Launch

launches_of = pipeline.make_launches


class OnOperators:
    """A launch that computes what its kernels write from what they read, parts of sums included."""

    calls, recordable = (), True

    def __init__(self, slots: LaunchCode, generated: Generated) -> None:
        (launch,) = launches_of([slots], generated)
        self.kernels, self.use = launch.kernels, launch.use
        self.schedule = generated.schedule

    def run(self, context: Context, tensor: Memory) -> None:
        """Writes in float32."""
        for kernel in self.kernels:
            known = self._read(kernel, context, tensor)
            outputs = {str(i): n for i, n in enumerate(kernel.writes)}
            found = AtenExecutor(Graph("kernel", outputs, frozenset(known)))(context, known)
            for n in kernel.writes:
                tensor(n).copy_(found[n].reshape(-1))

    def _read(self, kernel: Kernel, context: Context, tensor: Memory) -> dict[Node, Tensor]:
        """Returns what a kernel, and those whose parts it adds, find in memory."""
        fresh, known = computed_by(kernel, self.schedule), dict[Node, Tensor]()

        def at_hand(node: Node) -> bool:
            if node in fresh:
                return False
            try:
                value = tensor(node).view(concrete(node.shape, context.batch))
            except NewtritonError:
                if node in self.use.buffers:
                    raise
                return False
            known[node] = value.float() if value.is_floating_point() else value.long()
            return True

        topological(kernel.writes, stop=at_hand)
        return known


def make_launches(slots: Sequence[LaunchCode], generated: Generated) -> list[Launch]:
    """Returns the launches of a plan on PyTorch's operators, which the vendor's are."""

    def launch(each: LaunchCode) -> Launch:
        if each.kernels[0].way.by_vendor:
            return launches_of([each], generated)[0]
        return OnOperators(each, generated)

    return [launch(each) for each in slots]
