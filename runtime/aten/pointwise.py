"""Groups of maps over one shape, evaluated chunk by chunk so that intermediates stay in the cache.

A group is lowered to straight-line calls of PyTorch operators with `out=`, equal subexpressions of
all its maps computed once, temporaries sharing buffers of one chunk. Sums of its values, over
everything or down to the last axis, are taken on the way: no value is written unless somebody else
needs it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...compiler.graph import scalar
from ...compiler.graph.ir import Node, concrete
from ...compiler.graph.scalar import Expr
from ..backend import Context
from ..recent import Recent
from .patterns import FUSED_MAPS

aten = torch.ops.aten
Call = Callable[..., Tensor]

SMALL = 1 << 14  # elements up to which all intermediates of a group fit the second-level cache
CHUNK = 1 << 17  # elements of a chunk: a few chunks fit the second-level cache
LARGE_CHUNK = 1 << 25  # those of a chunk on a GPU: work for all of it
LEAST_EXPONENT = -87.3  # of which e to the power is a normal float32


class Instruction(NamedTuple):
    """One call of an operator.

    Attributes:
        key: the name of the operator, and the numbers that it takes.
        call: takes the tensors of the slots, and writes its result to `out`, or to new memory
            where that is None.
        slots: the slots that it reads.
        target: the slot that it writes.
    """

    key: tuple
    call: Call
    slots: tuple[int, ...]
    target: int


def _fill(value: float) -> Call:
    def call(out: Tensor | None) -> Tensor:
        assert out is not None, "a number has no shape of its own"
        return out.fill_(value)

    return call


def _add(alpha: float) -> Call:
    return lambda x, y, out: torch.add(x, y, alpha=alpha, out=out)


def _add_product(alpha: float) -> Call:
    return lambda x, y, z, out: torch.addcmul(x, y, z, value=alpha, out=out)


def _add_number(number: float) -> Call:
    return lambda x, out: torch.add(x, number, out=out)


def _mul_number(number: float) -> Call:
    return lambda x, out: torch.mul(x, number, out=out)


def _power(exponent: float) -> Call:
    return lambda x, out: torch.pow(x, exponent, out=out)


def _affine(alpha: float, number: float) -> Call:
    return lambda x, out: torch.mul(x, alpha, out=out).add_(number)


def _where(condition: Tensor, a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
    return torch.where(condition > 0, a, b, out=out)


def _where_or_nan(
    condition: Tensor, a: Tensor, b: Tensor, at_nan: Tensor, out: Tensor | None
) -> Tensor:
    return torch.where(condition > 0, a, torch.where(condition <= 0, b, at_nan), out=out)


def _where_zero(condition: Tensor, a: Tensor, out: Tensor | None) -> Tensor:
    if out is None:
        return aten.threshold_backward(a, condition, 0)
    return aten.threshold_backward.grad_input(a, condition, 0, grad_input=out)


def _softplus(x: Tensor, out: Tensor | None) -> Tensor:
    """Returns log(1 + eˣ), which beyond 40 is x to the last digit of a float64."""
    return aten.softplus(x, 1.0, 40.0) if out is None else aten.softplus.out(x, 1.0, 40.0, out=out)


def _written(x: Tensor, value: Tensor, out: Tensor | None) -> Tensor:
    """Returns a value in the dtype of x, written to `out` where there is one."""
    return value.to(x.dtype) if out is None else out.copy_(value)


def _round_tf32(x: Tensor, out: Tensor | None) -> Tensor:
    bits = (x.float().view(torch.int32) + 0x1000) & ~0x1FFF
    return _written(x, torch.where(x.isfinite(), bits.view(torch.float32), x), out)


def _round_bf16(x: Tensor, out: Tensor | None) -> Tensor:
    return _written(x, x.float().bfloat16(), out)


def _exp(x: Tensor, out: Tensor | None) -> Tensor:
    """Returns eˣ; in float32, 0 where that is below the smallest normal number.

    MKL takes ten to thirty times as long for such x, which masked scores are.
    """
    if x.dtype is not torch.float32 or x.device.type != "cpu":
        return torch.exp(x, out=out)
    result = torch.clamp(x, min=LEAST_EXPONENT, out=out).exp_()
    return aten.threshold_backward.grad_input(result, x, LEAST_EXPONENT, grad_input=result)


_UNARY: dict[str, Call] = {
    "exp": _exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "reciprocal": torch.reciprocal,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "tf32": _round_tf32,
    "bf16": _round_bf16,
    "softplus": _softplus,
    "sin": torch.sin,
    "cos": torch.cos,
}


class _Lowering:
    """Turns the expressions of several maps into instructions over slots, by value numbering.

    A slot is one value; equal expressions of equal slots are one slot.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.instructions: list[Instruction] = []
        self.known: dict[tuple, int] = {}
        self.slots = 0

    def new(self) -> int:
        """Returns a new slot."""
        self.slots += 1
        return self.slots - 1

    def emit(self, key: tuple, call: Call, *slots: int) -> int:
        """Returns the slot of a call; the same call of the same slots is made once."""
        found = self.known.get((key, slots))
        if found is None:
            found = self.known[key, slots] = self.new()
            self.instructions.append(Instruction(key, call, slots, found))
        return found

    def number(self, expr: Expr) -> float | None:
        """Returns the value of an expression without operands, None for others."""
        return None if scalar.operands(expr) else scalar.evaluate(expr, self.batch)

    def lower(self, expr: Expr, operands: Sequence[int]) -> int:
        """Returns the slot of an expression of the operands' slots."""
        if expr.op == "var":
            return operands[int(expr.value or 0)]
        value = self.number(expr)
        if value is not None:
            return self.emit(("fill", value), _fill(value))
        if expr.op == "add":
            return self.sum(expr, operands)
        if expr.op == "mul":
            return self.product(expr, operands)
        if expr.op == "power":
            exponent = scalar.evaluate(expr.args[1], self.batch)
            return self.emit(
                ("power", exponent), _power(exponent), self.lower(expr.args[0], operands)
            )
        if expr.op == "where":
            if len(expr.args) == 4:
                slots = [self.lower(e, operands) for e in expr.args]
                return self.emit(("where or nan",), _where_or_nan, *slots)
            condition, a, b = expr.args
            slots = [self.lower(e, operands) for e in (condition, a)]
            if b is scalar.ZERO:
                return self.emit(("where0",), _where_zero, *slots)
            return self.emit(("where",), _where, *slots, self.lower(b, operands))
        return self.emit((expr.op,), _UNARY[expr.op], self.lower(expr.args[0], operands))

    def sum(self, expr: Expr, operands: Sequence[int]) -> int:
        """Returns the slot of a sum.

        Coefficients ride on the additions; a term without one starts the sum if there is one.
        """
        numbers = [v for a in expr.args if (v := self.number(a)) is not None]
        terms = [self.factored(a, operands) for a in expr.args if self.number(a) is None]
        terms.sort(key=lambda t: t[0] != 1.0)
        (factor, total), *rest = terms
        number = math.fsum(numbers)
        if factor != 1.0 and number:
            total = self.emit(("affine", factor, number), _affine(factor, number), total)
            number = 0.0
        elif factor != 1.0:
            total = self.emit(("mul", factor), _mul_number(factor), total)
        for factor, slot in rest:
            total = self.emit(("add", factor), _add(factor), total, slot)
        return self.emit(("add", number), _add_number(number), total) if number else total

    def factored(self, expr: Expr, operands: Sequence[int]) -> tuple[float, int]:
        """Returns a term as a number and a slot that has yet to be multiplied by it."""
        if expr.op != "mul":
            return 1.0, self.lower(expr, operands)
        number, total = 1.0, None
        inverses = []
        for factor in expr.args:
            value = self.number(factor)
            if value is not None:
                number *= value
            elif factor.op == "reciprocal":
                inverses.append(self.lower(factor.args[0], operands))
            else:
                slot = self.lower(factor, operands)
                total = slot if total is None else self.emit(("mul",), torch.mul, total, slot)
        if total is None:
            total = self.emit(("reciprocal",), torch.reciprocal, inverses.pop())
        for slot in inverses:
            total = self.emit(("div",), torch.div, total, slot)
        return number, total

    def product(self, expr: Expr, operands: Sequence[int]) -> int:
        """Returns the slot of a product; numbers are multiplied beforehand."""
        number, slot = self.factored(expr, operands)
        return slot if number == 1.0 else self.emit(("mul", number), _mul_number(number), slot)


def _with_products_added(
    instructions: Sequence[Instruction], kept: Sequence[int]
) -> list[Instruction]:
    """Returns the instructions with x + α·(y·z) as one where nobody else reads y·z.

    Args:
        instructions: straight-line code.
        kept: the slots that are read behind it.
    """
    readers = Counter(s for ins in instructions for s in ins.slots) + Counter(kept)
    product = {
        ins.target: ins for ins in instructions if ins.key == ("mul",) and readers[ins.target] == 1
    }
    found: dict[int, Instruction] = {}
    for ins in instructions:
        found[ins.target] = ins
        if ins.key[0] != "add" or len(ins.slots) != 2:
            continue
        (x, y), alpha = ins.slots, ins.key[1]
        x, y = (y, x) if y not in product and alpha == 1.0 else (x, y)
        if y in product and x != y:
            del found[y]
            slots = (x, *product[y].slots)
            found[ins.target] = Instruction(("addcmul",), _add_product(alpha), slots, ins.target)
    return list(found.values())


class Pointwise:
    """A group of maps in execution order, and sums over them.

    Args:
        maps: the maps of the group, operands first, all of one shape.
        wanted: the maps whose values are written.
        sums: `reduce_sum` nodes over maps of the group: over all axes, or all but the last.
    """

    def __init__(
        self, maps: Sequence[Node], wanted: Sequence[Node], sums: Sequence[Node] = ()
    ) -> None:
        inside = set(maps)
        self.maps, self.sums = list(maps), list(sums)
        self.reads = list(dict.fromkeys(i for m in maps for i in m.inputs if i not in inside))
        self.wanted = list(wanted)
        self.writes = [*self.wanted, *self.sums]
        self.shape = maps[0].shape
        self._of_ints = any(x.type.kind == "int" for x in self.reads)
        expr = maps[0]["expr"]
        alone = len(self.maps) == 1 and {*scalar.operands(expr)} == {*range(len(self.reads))}
        self._fused = FUSED_MAPS.get(expr) if alone else None
        self._loops = Recent[tuple[int, int], _Loop]()

    def single(self, context: Context, *operands: Tensor) -> Tensor:
        """Returns the value of a group of one map, whose operands come in the map's own order."""
        return self(context, *(operands[self.maps[0].inputs.index(i)] for i in self.reads))[0]

    def __call__(self, context: Context, *operands: Tensor) -> list[Tensor]:
        """Returns the values of `writes` for the operands `reads`."""
        if self._of_ints:
            operands = tuple(x.to(context.dtype) for x in operands)
        if self._fused is not None:
            value = self._fused(*operands)
            return [value] * len(self.wanted) + [value.sum(node["axes"]) for node in self.sums]
        chunk = LARGE_CHUNK if context.device.type == "cuda" else CHUNK
        loop = self._loops.made((context.batch, chunk), lambda: _Loop(self, context.batch, chunk))
        return loop.run(context, operands)


class _Loop:
    """A group at a batch size: a loop over chunks of rows, and the buffer of each slot.

    Args:
        group: what is computed.
        batch: the batch size.
        chunk: the elements of a chunk; `CHUNK` unless given.
    """

    def __init__(self, group: Pointwise, batch: int, chunk: int | None = None) -> None:
        lowering = _Lowering(batch)
        slot_of = {node: lowering.new() for node in group.reads}
        for node in group.maps:
            slot_of[node] = lowering.lower(node["expr"], [slot_of[i] for i in node.inputs])
        shape = concrete(group.shape, batch)
        self.shape = shape
        self.slots = lowering.slots
        self.n_reads = len(group.reads)
        self.wanted = [slot_of[n] for n in group.wanted]
        self.sums = [
            (slot_of[n.inputs[0]], len(n.shape) == 1 and len(shape) > 1) for n in group.sums
        ]
        kept = [*self.wanted, *(slot for slot, _ in self.sums)]
        self.instructions = _with_products_added(lowering.instructions, kept)
        columns = shape[-1] if len(shape) > 1 else 1
        self.rows = math.prod(shape) // max(1, columns)
        self.flat = (self.rows, columns) if len(shape) > 1 else shape
        self.step = min(self.rows, max(1, (chunk or CHUNK) // max(1, columns)))
        self.run = self._at_once if math.prod(shape) <= SMALL else self._by_chunks
        self.chunk = (self.step, *self.flat[1:]) if shape else ()
        self._assign()

    def _assign(self) -> None:
        """Gives temporaries buffers: that of a slot is free again after its last reader."""
        keep = {*self.wanted, *(s for s, _ in self.sums)}
        last = {slot: i for i, ins in enumerate(self.instructions) for slot in ins.slots}
        free: list[int] = []
        self.buffer: dict[int, int] = {}
        self.buffers = 0
        for i, ins in enumerate(self.instructions):
            dying = {s for s in ins.slots if last[s] == i and s in self.buffer and s not in keep}
            if ins.target not in self.wanted:
                if not free:
                    free.append(self.buffers)
                    self.buffers += 1
                self.buffer[ins.target] = free.pop()
            free.extend(self.buffer[s] for s in dying)

    def _at_once(self, context: Context, operands: Sequence[Tensor]) -> list[Tensor]:
        """Runs on all rows: intermediates stay in the cache wherever PyTorch puts them."""
        values: list[Any] = [x.contiguous() for x in operands]
        values += [None] * (self.slots - self.n_reads)
        for _, call, slots, target in self.instructions:
            out = None if slots else context.empty(self.shape)
            values[target] = call(*[values[s] for s in slots], out=out)
        results = [values[s] for s in self.wanted]
        for slot, by_column in self.sums:
            value = values[slot]
            results.append(value.view(self.flat).sum(0) if by_column else value.sum())
        return results

    def _by_chunks(self, context: Context, operands: Sequence[Tensor]) -> list[Tensor]:
        """Runs chunk by chunk, on buffers that stay in the cache."""
        values: list[Any] = [x.reshape(self.flat) for x in operands]
        values += [None] * (self.slots - self.n_reads)
        results = {slot: context.empty(self.flat) for slot in self.wanted if slot >= self.n_reads}
        whole = {**dict(enumerate(values[: self.n_reads])), **results}
        temporaries = [context.empty(self.chunk) for _ in range(self.buffers)]
        totals: list[Tensor] = []
        starts = range(0, self.rows, self.step)
        if context.device.type == "meta":  # what is counted there has all after two of them
            starts = starts[:2]
        for start in starts:
            size = min(self.step, self.rows - start)
            for slot, tensor in whole.items():
                values[slot] = tensor.narrow(0, start, size)
            for _, call, slots, target in self.instructions:
                if target not in results:
                    buffer = temporaries[self.buffer[target]]
                    values[target] = buffer if size == self.step else buffer.narrow(0, 0, size)
                call(*[values[s] for s in slots], out=values[target])
            parts = [
                values[s].sum(0) if by_column else values[s].sum() for s, by_column in self.sums
            ]
            parts = [p.double() for p in parts]
            totals = [t + p for t, p in zip(totals, parts, strict=True)] if totals else parts
        written = [whole[s] for s in self.wanted]
        return [x.view(self.shape) for x in written] + [t.to(context.dtype) for t in totals]
