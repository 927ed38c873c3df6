"""What a loss is, and what follows from its values alone: labels it stands for, B and roots of B.

B = ∇²_z ℓ of one sample. Where p = e^{−ℓ/d} is a distribution over a sample's labels, d being the
loss's dispersion, labels are drawn from it, and the Fisher matrix is 1/d Σ_y p(y|z) ∇ℓ ∇ℓᵀ = E[B].
A root S of B, S Sᵀ = B, is a value copies×N×K: copy k is column k.

N is the number of rows that a loss sees, see `data_term`: where it is one on classes, of sequences,
that is N·T for T positions, and whatever is said of a sample here is said of a position.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..derivatives.copies import copies
from ..derivatives.jvp import jvp
from ..derivatives.transpose import vjp
from ..graph import ops, scalar
from ..graph.errors import NewtritonError, quoted
from ..graph.ir import Node, Op, rewrite
from ..graph.options import check_number, check_option
from ..graph.scalar import Expr, var
from .described import Described
from .normaliser import of_samples, over, split

ROOTS = ("fisher", "clip")
NOISES = ("uniform", "normal")
GAUSS_NEWTON = ("ggn", "kflr", "kfra")  # curvatures that are made of B

POSITIVE = scalar.where(var(0), var(0), 0.0)


class Loss(Described):
    """A per-sample loss ℓ(z, y); a subclass says `losses` in graph ops, and what else it is.

    The mean of ℓ over the batch is the data term of h, the sum divided by that of `counts`. All
    derivatives follow from `losses`, and so do labels drawn from the model, Fisher matrices and
    roots of B where the loss allows them.

    Attributes:
        convex: whether B = ∇²_z ℓ is positive semidefinite whatever z and y are.
        distribution: whether e^{−ℓ/d} is a distribution over the labels.
        dispersion: d > 0, the unit of ℓ: second moments of gradients over d stand for curvature.
        separable: whether ℓ is a sum over the outputs, so that `square_root` is diagonal, and
            linear in the units. Such a loss sees all outputs of a sample in one row.
        root: what Gauss–Newton curvature takes for B: None for B itself, "fisher" for E[B] over
            labels of that distribution, "clip" for B without its negative eigenvalues.
        noise: the random numbers that `drawn` takes, "uniform" in [0, 1) or "normal".
        span: the least and the largest float label that there can be; None for all numbers.
        lowest: a number that ℓ is never below, where one is known, see `bound`.
        values: the only float labels that there are; None for all numbers.

    Examples:
        The focal loss (1 − p_y)² · cross-entropy (Lin et al. 2017):

        >>> import newtriton as nt
        >>> class FocalLoss(nt.Loss):
        ...     root = "clip"
        ...     def losses(self, z, y):
        ...         ce = nt.scalar.var(0)
        ...         miss = 1 - nt.scalar.exp(-ce)
        ...         return nt.ops.map_(miss * miss * ce, nt.CrossEntropyLoss().losses(z, y))
        >>> nt.compile(nt.Linear(3), input_shape=(4,), loss=FocalLoss()).criterion
        FocalLoss()
    """

    convex: bool = False
    distribution: bool = False
    dispersion: float = 1.0
    separable: bool = False
    root: str | None = None
    noise: str = "uniform"
    span: tuple[float, float] | None = None
    lowest: float | None = None
    values: tuple[float, ...] | None = None

    @property
    def bound(self) -> float | None:
        """A number that ℓ is never below: 0 where e^{−ℓ/d} are probabilities; None for none."""
        return 0.0 if self.distribution and self.values is not None else self.lowest

    @property
    def title(self) -> str:
        """The name by which errors call the loss."""
        return type(self).__name__

    @property
    def plain(self) -> Loss:
        """The loss without `weights`: the one whose labels are drawn."""
        return self

    def classes(self, z: Node) -> int:
        """Returns how many classes there are for int labels: as many as outputs."""
        return z.shape[-1]

    def ignored(self, z: Node) -> int | None:
        """Returns the int label that does not count; None where all do."""
        return None

    def labels(self, z: Node) -> Node:
        """Returns the input node of the labels for outputs z, N×K: int64 classes (N,)."""
        return ops.input_("y", z.shape[:1], "int")

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N per-sample losses ℓ for outputs z, N×K, and labels y."""
        raise NotImplementedError

    def counts(self, z: Node, y: Node) -> Node | None:
        """Returns N numbers by whose sum the sum of the losses is divided; None where all are 1."""
        return None

    def weights(self, z: Node, y: Node) -> Node | None:
        """Returns N×K numbers c, B being √c B' √c for the B' of `plain`; None where all are 1."""
        return None

    def scores(self, z: Node) -> Node:
        """Returns N×classes numbers; the class that is predicted has the largest of its row.

        One output decides between `values`, or 0 and 1: for that which has the least loss.
        """
        y = self.labels(z)
        if z.shape[-1] > 1 or y.type.kind == "int":
            return z
        given = (ops.broadcast(ops.const(number), z.shape) for number in self.values or (0.0, 1.0))
        losses = [ops.reshape(self.losses(z, number), z.shape) for number in given]
        return ops.make(Op.CONCAT, *(ops.scale(x, -1.0) for x in losses), axis=1)

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Returns labels drawn from e^{−ℓ/d}, and the input node of the random numbers."""
        u = ops.input_("noise", z.shape[:1])
        return ops.make(Op.SAMPLE, log_likelihoods(self, z), u), u

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """Returns a root of what stands for B, copies×N×K.

        Args:
            z: the outputs, N×K.
            y: the labels.
            units: the unit vectors, K×N×K; copy k is e_k for every sample.
        """
        if self.root == "fisher":
            return _fisher_root(self, z, y)
        matrices = ops.transpose(output_hessian(self, z, y, units), (1, 0, 2))
        root = ops.make(Op.SPECTRAL, matrices, expr=scalar.sqrt(POSITIVE))
        return ops.transpose(root, (1, 0, 2))

    def check(self) -> None:
        """Raises an error where an attribute is none that this loss can have."""
        check_option("noise", self.noise, NOISES)
        check_number("dispersion", self.dispersion, above=0.0)
        check_root(self.root)
        if self.root == "fisher" and not self.distribution:
            raise NewtritonError(
                f"{quoted(self)} defines no distribution, hence no Fisher matrix: take root='clip'"
            )


def check_loss(loss: object) -> Loss:
    """Returns a loss; raises an error where this is none, as PyTorch's of the same names are."""
    if not isinstance(loss, Loss):
        theirs = " of torch.nn" if type(loss).__module__.startswith("torch.nn.") else ""
        raise NewtritonError(
            f"loss is {quoted(loss)}{theirs}: give e.g. newtriton.CrossEntropyLoss()"
        )
    return loss


def check_root(root: object) -> None:
    """Raises an error where nothing of that name can stand for B."""
    if root is not None and not (isinstance(root, str) and root in ROOTS):
        raise NewtritonError(f"root is {quoted(root)}: 'fisher', 'clip' or None")


def semidefinite(criterion: Loss) -> bool:
    """Returns whether what stands for B has no negative eigenvalue."""
    return criterion.convex or criterion.root is not None


def refusal(criterion: Loss, kind: str) -> str | None:
    """Says why a loss does not have the curvature `kind`, and what serves; None where it has it."""
    if kind in GAUSS_NEWTON and not semidefinite(criterion):
        fisher = "which needs a distribution that this loss does not define"
        if criterion.distribution:
            fisher = "E[B] over the model's own labels"
        return (
            f"{kind!r} needs a semidefinite B = ∇²_z ℓ, and that of {quoted(criterion)} is "
            f"indefinite: give it root='clip' (no negative eigenvalues) or "
            f"root='fisher' ({fisher}), or take the curvature 'hessian', 'empirical' or 'pch-1'"
        )
    if kind == "kfac" and not criterion.distribution:
        return (
            f"{kind!r} draws labels from the model, and {quoted(criterion)} defines no "
            "distribution: take the kind 'empirical' or 'pch-1'"
        )
    return None


def require(criterion: Loss, kind: str) -> None:
    """Raises an error where a loss does not have the curvature `kind`."""
    if sentence := refusal(criterion, kind):
        raise NewtritonError(sentence)


def unit_vectors(z: Node) -> Node:
    """Returns K×N×K, whose copy k is the unit vector e_k for every sample.

    Which ones they are is read from the graph's input `columns`, K×N.
    """
    rows, count = z.shape
    return ops.make(Op.ONE_HOT, ops.input_("columns", (count, rows), "int"), classes=count)


def _slopes(criterion: Loss, z: Node, losses: Node) -> Node:
    """Returns ∇_z ℓ of every sample, N×K."""
    found = vjp({losses: ops.broadcast(ops.const(1.0), losses.shape)}, [z]).get(z)
    if found is None:
        raise NewtritonError(f"{quoted(criterion)} does not depend on the network's outputs")
    return found


def output_hessian(criterion: Loss, z: Node, y: Node, units: Node) -> Node:
    """Returns B of every sample, K×N×K: copy k is B e_k."""
    direction = ops.input_("z_dot", z.shape)
    slopes = _slopes(criterion, z, criterion.losses(z, y))
    bent = jvp([slopes], {z: direction})[slopes]
    if bent is None:
        return ops.broadcast(ops.const(0.0), units.shape)
    return copies([bent], {direction: units}, z.shape[-1])[bent]


def _by_class(criterion: Loss, z: Node, y: Node) -> Iterator[tuple[Node, Node]]:
    """Yields ℓ and ∇_z ℓ with each class in place of the label."""
    if y.type.kind != "int":
        raise NewtritonError(
            f"{quoted(criterion)} has labels that are numbers, which cannot be "
            "enumerated: write its `drawn` and take root='clip' where B is indefinite"
        )
    losses = criterion.losses(z, y)
    outputs = {"losses": losses, "slopes": _slopes(criterion, z, losses)}
    for k in range(criterion.classes(z)):

        def hot(node: Node, inputs: tuple[Node, ...], k: int = k) -> Node:
            if node.op is not Op.ONE_HOT or node.inputs != (y,):
                return ops.remake(node, inputs)
            one = ops.broadcast(ops.const(1.0), (*y.shape, 1))
            return ops.make(Op.PAD, one, axis=1, low=k, high=node["classes"] - 1 - k)

        given = rewrite(outputs, hot)
        yield given["losses"], given["slopes"]


def log_likelihoods(criterion: Loss, z: Node) -> Node:
    """Returns −ℓ/d with each class in place of the label, N×classes."""
    inverse = -1.0 / criterion.dispersion
    losses = [
        ops.reshape(ops.scale(x, inverse), (*x.shape, 1))
        for x, _ in _by_class(criterion, z, criterion.labels(z))
    ]
    return ops.make(Op.CONCAT, *losses, axis=1)


def _fisher_root(criterion: Loss, z: Node, y: Node) -> Node:
    """Returns √(p(k|z)/d) ∇_z ℓ(z, k), a column for each class k, where p = e^{−ℓ/d}."""
    columns, inverse = [], 1.0 / criterion.dispersion
    expr = scalar.exp(-0.5 * inverse * var(1)) * var(0) * inverse**0.5
    for losses, slopes in _by_class(criterion, z, y):
        weight = ops.broadcast(losses, slopes.shape, (1,))
        column = ops.map_(expr, slopes, weight)
        columns.append(ops.reshape(column, (1, *z.shape)))
    return ops.make(Op.CONCAT, *columns, axis=0)


def drawn_adjoints(criterion: Loss, z: Node, y: Node, normaliser: Node) -> tuple[Node, Node]:
    """Returns adjoints of z for labels that are drawn from the model, and the random numbers' node.

    Over the labels, N z̄ of a sample has the covariance E[B]; of sequences and where labels decide
    what counts, see `normaliser.of_samples`.

    Args:
        criterion: the loss; where it has weights c, √c times the adjoints of `plain` are taken.
        z: the outputs, N×K.
        y: the labels.
        normaliser: what the sum of the losses is divided by, M.
    """
    labels, noise = criterion.drawn(z)
    given = criterion.plain.labels(z)
    mean = over(ops.reduce_sum(criterion.plain.losses(z, given)), normaliser)
    z_bar = vjp({mean: ops.const(1.0)}, [z])[z]
    z_bar = of_samples(z_bar, normaliser, criterion.dispersion**-0.5)

    def draw(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node is normaliser:  # it is that of the true labels
            return node
        return labels if node is given else ops.remake(node, inputs)

    z_bar, weights = rewrite({"z_bar": z_bar}, draw)["z_bar"], criterion.weights(z, y)
    if weights is not None:
        z_bar = ops.map_(var(0) * scalar.sqrt(var(1)), z_bar, weights)
    return z_bar, noise


def root_columns(criterion: Loss, z: Node, y: Node, normaliser: Node) -> Node:
    """Returns the columns of a root of B as adjoints of z, copies; see `drawn_adjoints`."""
    root = over(criterion.square_root(z, y, unit_vectors(z)), normaliser)
    return of_samples(root, normaliser)


def output_product(
    criterion: Loss, z: Node, y: Node, normaliser: Node, z_bar: Node, z_dot: Node
) -> Node | None:
    """Returns B ż for the mean loss, N×K, or None where it is zero.

    Args:
        criterion: the loss; where it has a root, B is the root times its transpose.
        z: the outputs, N×K.
        y: the labels.
        normaliser: what the sum of the losses is divided by.
        z_bar: the mean loss's adjoint of the outputs.
        z_dot: the tangent ż of the outputs.
    """
    require(criterion, "ggn")
    if criterion.root is None:
        return jvp([z_bar], {z: z_dot})[z_bar]
    root = criterion.square_root(z, y, unit_vectors(z))
    along = ops.reduce_sum(ops.multiply(root, ops.broadcast(z_dot, root.shape, (0,))), (2,))
    back = ops.multiply(root, ops.broadcast(along, root.shape, (2,)))
    return over(ops.reduce_sum(back, (0,)), normaliser)


def mean_curvature(
    criterion: Loss, z: Node, y: Node, normaliser: Node, positive: Expr | None
) -> Node:
    """Returns E[B] over the batch, K×K.

    Args:
        criterion: the loss.
        z: the outputs, N×K.
        y: the labels.
        normaliser: what the sum of the losses is divided by.
        positive: what becomes of the mean's eigenvalues where B is indefinite, an expression of
            one operand (Chen et al. 2018, eq. 8a); None for what stands for B.
    """
    units = unit_vectors(z)
    if positive is None or semidefinite(criterion):
        root, (number, counted) = criterion.square_root(z, y, units), split(normaliser)
        scale = scalar.reciprocal(number)
        gram = ops.make(Op.GRAM, root, groups=1, homogeneous=False, scale=scale)
        return gram if counted is None else over(gram, counted)
    mean = over(ops.reduce_sum(output_hessian(criterion, z, y, units), (1,)), normaliser)
    return ops.make(Op.SPECTRAL, mean, expr=positive)
