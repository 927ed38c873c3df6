"""Who computes a contraction: as the settings say, or as a comparison finds, where ours can."""

import pytest

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op
from newtriton.compiler.lowering.kernel import VENDOR, Way
from newtriton.runtime.fused.selection import BY_VENDOR, FUSED, IN_FOUR_WARPS, Selection
from newtriton.runtime.fused.settings import Settings

X, W = ops.input_("x", (N, 64)), ops.param("w", (48, 64))
PRODUCT = ops.matmul(X, W, tb=True)
SAMPLES_AS_COLUMNS = ops.matmul(W, X, tb=True)
ROWS = ops.make(Op.SCATTER_ROWS, X, ops.input_("i", (N,), "int"), size=9)
SPECTRUM = ops.make(Op.SPECTRAL, ops.param("s", (3, 3)), expr=scalar.exp(scalar.var(0)))


class Asked:
    """Finds our kernels faster at even batch sizes, and notes what it is asked."""

    def __init__(self) -> None:
        self.prepared: list[tuple[list[Node], int]] = []
        self.asked: list[Node] = []

    def prepare(self, nodes, batch: int) -> None:
        self.prepared.append((list(nodes), batch))

    def fastest(self, node: Node, batch: int) -> str:
        self.asked.append(node)
        return FUSED if batch % 2 == 0 else BY_VENDOR


@pytest.mark.parametrize(("contractions", "fused"), [("fused", True), ("vendor", False)])
def test_settings_say_who(contractions: str, fused: bool):
    selection = Selection(Settings("ieee", contractions))
    assert (selection.chosen(PRODUCT, 8) == FUSED) is fused
    assert (selection.way(PRODUCT, 8) == VENDOR) is not fused


@pytest.mark.parametrize("node", [SAMPLES_AS_COLUMNS, SPECTRUM], ids=["columns", "spectrum"])
def test_what_no_skeleton_computes_is_the_vendors(node: Node):
    asked = Asked()
    for selection in (Selection(Settings("ieee", "fused")), Selection(Settings(), asked)):
        assert selection.way(node, 8) == VENDOR
    assert not asked.asked


@pytest.mark.parametrize("contractions", ["fused", "vendor"])
def test_rows_are_added_by_us_alone(contractions: str):
    asked = Asked()
    for selection in (Selection(Settings("ieee", contractions)), Selection(Settings(), asked)):
        selection.prepare([Graph("rows", {"rows": ROWS})], 8)
        assert selection.way(ROWS, 8) == Way()
    assert not asked.asked and asked.prepared == [([], 8)]


def test_a_comparison_is_asked_for_contractions_alone():
    asked = Asked()
    selection = Selection(Settings("ieee", "measured", interpreted=True), asked)
    z = ops.map_(scalar.tanh(scalar.var(0)), PRODUCT)
    selection.prepare(
        [Graph("both", {"z": z, "stack": SAMPLES_AS_COLUMNS, "spectrum": SPECTRUM})], 8
    )
    assert asked.prepared == [([PRODUCT], 8)]
    assert [selection.way(PRODUCT, n) for n in (8, 7)] == [Way(), VENDOR]
    assert set(asked.asked) == {PRODUCT}


@pytest.mark.parametrize(("precision", "together"), [("ieee", False), ("tf32", True)])
def test_three_products_share_a_loop_where_tensor_cores_wait(precision: str, together: bool):
    tiling = Selection(Settings(precision, "fused")).tiling(PRODUCT, 4096, shares_loop=True)
    assert tiling.constants["TOGETHER"] is together  # type: ignore[union-attr]


def test_four_warps_where_eight_are_wrong():
    class Four(Asked):
        def fastest(self, node: Node, batch: int) -> str:
            return IN_FOUR_WARPS

    few, many = (Selection(Settings("tf32", "fused"), c) for c in (Four(), None))
    assert few.tiling(PRODUCT, 4096).constants["num_warps"] == 4
    assert few.way(PRODUCT, 4096) == many.way(PRODUCT, 4096)
    assert not few.tiling(PRODUCT, 4096, shares_loop=True).constants["TOGETHER"]  # type: ignore[union-attr]


def test_parts_are_those_of_the_tiling():
    deep = ops.matmul(ops.input_("d", (N, 4096)), ops.param("e", (64, 4096)), tb=True)
    selection = Selection(Settings("ieee", "fused"))
    assert selection.way(deep, 64) == Way(selection.tiling(deep, 64).split) != Way()


def test_products_in_passing_are_not_compared():
    asked = Asked()
    net = nt.Sequential(nt.SelfAttention(1), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (256, 8), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    Selection(Settings(), asked).prepare([model.programs[True].linearize.graph], 2)
    ((nodes, _),) = asked.prepared
    assert nodes and not any(x.shape[-2:] == (256, 256) for n in nodes for x in (n, *n.inputs))
