"""Where nodes are computed, and what a kernel can take: the state of a schedule in the making."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..graph.ir import CONTRACTIONS, Node, Shape
from .elements import LONGEST_ROW, Reduction, reduction
from .kernel import ALONE, Kernel, Way
from .order import Order
from .reading import Reading, Source
from .space import Space, in_rows, is_outer, is_partial, small, space_of


class Placement:
    """Kernels, the order in which they run, and which of them computes a node.

    Attributes:
        reading: what nodes read.
        order: the kernels, and who waits for whom.
        owner: the kernel in which a node's value is complete.
        part_of: for a sum that tiles give parts of, the kernel whose tiles do.
        stages: in kernels of several anchors, after which of them a node can be computed.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading, self.order = reading, Order()
        self.owner: dict[Node, Kernel] = {}
        self.part_of: dict[Node, Kernel] = {}
        self.stages: dict[Kernel, dict[Node, int]] = {}
        self._owned: dict[Kernel, list[Node]] = {}
        self._of_shape: dict[Shape, dict[Kernel, None]] = {}

    def kernel(
        self,
        space: Space,
        anchors: Sequence[Node] = (),
        way: Way = ALONE,
        adds: Kernel | None = None,
    ) -> Kernel:
        """Returns a new kernel, which waits for the one that it `adds`."""
        kernel = Kernel(
            self.order.next_number, space, [*anchors], way=way, adds=[adds] if adds else []
        )
        self.order.add(kernel)
        self._owned[kernel] = []
        if not anchors:
            self._of_shape.setdefault(space.shape, {})[kernel] = None
        if adds is not None:
            self.order.wait(kernel, adds)
        return kernel

    def put(self, node: Node, kernel: Kernel) -> None:
        """Notes that a node's value is complete in a kernel, as an anchor or in its body."""
        self.owner[node] = kernel
        self._owned[kernel].append(node)
        if node not in kernel.anchors:
            kernel.body.append(node)
            self._note_stage(kernel, node)

    def put_parts(self, node: Node, kernel: Kernel) -> None:
        """Notes that the tiles of a kernel give parts of a sum."""
        self.part_of[node] = kernel
        kernel.partials.append(node)
        self._note_stage(kernel, node, part=True)

    def wait(self, kernel: Kernel, values: Iterable[Node]) -> None:
        """Orders a kernel behind those that compute values it reads."""
        for value in values:
            producer = self.owner.get(value)
            if producer is not None and producer is not kernel:
                self.order.wait(kernel, producer)

    def earlier(self, node: Node) -> Sequence[Node]:
        """Returns the sum over ranks that comes before a node, where it is one itself."""
        found = self.reading.earlier.get(node)
        return () if found is None else (found,)

    def merge(self, kernels: Sequence[Kernel], joint: Node | None = None) -> Kernel:
        """Returns one kernel of several, in place of the last; their anchors may meet in a map."""
        last = kernels[-1]
        last.anchors = [a for k in kernels for a in k.anchors]
        last.body = [n for k in kernels for n in k.body]
        last.partials = [n for k in kernels for n in k.partials]
        last.adds = [head for k in kernels for head in k.adds]
        last.joint = joint or last.joint
        self.order.merge(kernels)
        owned = [n for k in kernels for n in self._owned[k]]
        for kernel in kernels[:-1]:
            del self._owned[kernel]
            self._of_shape.get(kernel.space.shape, {}).pop(kernel, None)
            self.stages.pop(kernel, None)
        self._owned[last] = owned
        self.owner.update(dict.fromkeys(owned, last))
        self.part_of.update(dict.fromkeys(last.partials, last))
        self._note_stages(last)
        return last

    # --- stages ---------------------------------------------------------------------------------

    def stage(self, kernel: Kernel, node: Node) -> int:
        """Returns after which of its kernel's anchors a value is in registers; −1 without any."""
        last = len(kernel.anchors) - 1
        return last if last < 1 else self.stages[kernel][node]

    def _note_stages(self, kernel: Kernel) -> None:
        if len(kernel.anchors) > 1:
            self.stages[kernel] = {a: i for i, a in enumerate(kernel.anchors)}
            for node in kernel.body:
                self._note_stage(kernel, node)
            for node in kernel.partials:
                self._note_stage(kernel, node, part=True)

    def _note_stage(self, kernel: Kernel, node: Node, part: bool = False) -> None:
        """Notes when a value can be computed: once the last value that it is made of is there."""
        last = len(kernel.anchors) - 1
        if last < 1:
            return
        stages = self.stages[kernel]
        sources = (s for s, _ in self.reading.sources(node, kernel.space, part))
        found = max((stages[s] for s in sources if self.owner.get(s) is kernel), default=last)
        stages[node] = last if node is kernel.joint else found

    # --- the kernel for a node ------------------------------------------------------------------

    def choose(self, node: Node, space: Space, part: bool = False) -> Kernel:
        """Returns the kernel for a node: that of its latest operand, or a new one.

        Small ones gather in any kernel that nothing waits for.
        """
        found = (self.owner.get(s) for s, _ in self.reading.sources(node, space, part))
        sources = {k for k in found if k is not None}
        if small(node) and not part:
            candidates = self._gathering(node, space, sources)
        else:
            candidates = iter(sorted(sources, key=lambda k: -k.number))
        fitting = (kernel for kernel in candidates if self.fits(node, kernel, part))
        return next(fitting, None) or self.kernel(space)

    def _gathering(self, node: Node, space: Space, sources: set[Kernel]) -> Iterator[Kernel]:
        """Yields kernels of a space that a small node can join without anybody waiting for more."""
        depth, after = self.order.depth, self.order.after
        before = {*sources, self.part_of[node]} if is_partial(node) else sources
        needed = max((depth[k] for k in before), default=-1) + 1
        for kernel in self._of_shape.get(space.shape, ()):
            free = not after[kernel] or needed <= depth[kernel] or kernel in sources
            if free:
                yield kernel

    def fits(self, node: Node, kernel: Kernel, part: bool) -> bool:
        """Whether a node can be computed in a kernel: shapes, registers, no cycle."""
        if kernel.way.apart or kernel.opaque:
            return False
        subject = node.inputs[0] if part else node
        if not self._has_room(node, subject, kernel):
            return False
        if part and any(map(is_outer, kernel.anchors)):
            return False
        if part and reduction(node) is Reduction.COLUMNS and not self._has_columns(kernel, subject):
            return False
        if is_partial(node) and not part and self.order.reaches(kernel, self.part_of[node]):
            return False
        return self._at_hand(node, kernel, self.reading.sources(node, kernel.space, part))

    @staticmethod
    def _has_columns(kernel: Kernel, subject: Node) -> bool:
        """Whether the columns of a kernel's space are the elements along a value's last axis."""
        space = kernel.space
        if space.cut != len(space.shape) - 1 or space.along_rows(subject.shape):
            return False
        return space.columns == subject.shape[-1]

    @staticmethod
    def _has_room(node: Node, subject: Node, kernel: Kernel) -> bool:
        """Whether the kernel's space has a place for the elements that are computed."""
        if kernel.space.home(subject.shape) is None:
            return False
        rows = in_rows(node) or kernel.space.along_rows(subject.shape)
        if rows and (kernel.anchors or kernel.space.columns > LONGEST_ROW):
            return False
        return not in_rows(node) or kernel.space.home(space_of(node).shape) is not None

    def _at_hand(self, node: Node, kernel: Kernel, sources: Iterable[Source]) -> bool:
        """Whether all that is read is in registers at one stage, or in memory before."""
        stages = set()
        for source, at in sources:
            producer = self.owner.get(source)
            if producer is kernel:
                if at != kernel.space.home(source.shape):
                    return False
                stages.add(self.stage(kernel, source))
            elif producer is not None and self.order.reaches(kernel, producer):
                return False
        return len(stages) <= 1 or node is kernel.joint

    def read_by(self, kernel: Kernel) -> dict[Source, None]:
        """Returns the values that a kernel's nodes read, and where."""
        found: dict[Source, None] = {}
        for node in kernel.nodes:
            found |= dict.fromkeys(self.reading.sources(node, kernel.space))
        for node in kernel.partials:
            found |= dict.fromkeys(self.reading.sources(node, kernel.space, part=True))
        return found

    def is_alone(self, node: Node) -> bool:
        """Whether a node is a contraction, and the only one of its kernel."""
        kernel = self.owner.get(node)
        if kernel is None or kernel.stream is not None or node.op not in CONTRACTIONS:
            return False
        return [a for k in (kernel.adds or [kernel]) for a in k.anchors] == [node]
