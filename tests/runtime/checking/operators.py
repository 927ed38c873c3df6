"""PyTorch's float32 operators in the place of kernels: what is right by definition."""

from collections.abc import Sequence

import torch

from newtriton.compiler.graph.ir import Graph, Node, concrete, topological
from newtriton.compiler.lowering.codegen import LaunchCode
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from newtriton.runtime.checking.isolation import computed_by
from newtriton.runtime.fused.launch import Generated, Memory, make_launch


class OnOperators:
    """A launch that computes what its kernels write from what they read, parts of sums included."""

    def __init__(self, slots: LaunchCode, generated: Generated) -> None:
        launch = make_launch(slots, generated)
        self.kernels, self.use, self.schedule = launch.kernels, launch.use, generated.schedule
        self.jobs = launch.jobs

    def run(self, context: Context, tensor: Memory) -> None:
        """Writes in float32."""
        for kernel in self.kernels:
            fresh = computed_by(kernel, self.schedule)
            known: dict[Node, torch.Tensor] = {}

            def at_hand(node: Node, fresh=fresh, known=known) -> bool:
                if node not in fresh:
                    try:
                        value = tensor(node).view(concrete(node.shape, context.batch))
                    except Exception:  # it is not in memory
                        return False
                    known[node] = value.float() if value.is_floating_point() else value.long()
                return node in known

            topological(kernel.writes, stop=at_hand)
            outputs = {str(i): n for i, n in enumerate(kernel.writes)}
            found = AtenExecutor(Graph("kernel", outputs, frozenset(known)))(context, known)
            for n in kernel.writes:
                tensor(n).copy_(found[n].reshape(-1))


def make_launches(slots: Sequence[LaunchCode], generated: Generated) -> list[OnOperators]:
    """Returns the launches of a plan on PyTorch's operators."""
    return [OnOperators(each, generated) for each in slots]
