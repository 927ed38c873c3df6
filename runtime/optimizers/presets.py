"""The papers' methods: presets over curvature, solver and step rule, with the papers' defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...compiler.curvature.adjoints import MAX_COPIES
from ...compiler.curvature.blocks import MAX_FACTOR
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_count, check_flag
from ..curvatures.kronecker import KroneckerCurvature
from ..curvatures.matrix_free import MatrixFree, WithPreconditioner
from ..parts.protocols import Curvature, StepRule
from ..rules.fixed import Fixed
from ..rules.line_search import LevenbergMarquardt
from ..rules.quadratic_model import QuadraticModel
from ..rules.trust_region import TrustRegion
from ..solvers.block_cg import MeanCG
from ..solvers.cg import TruncatedCG
from ..solvers.direct import KFI
from .averaging import PolyakAverage
from .second_order import SecondOrder

if TYPE_CHECKING:
    from ..model.model import Model

Every = int | tuple[int, int]


def refresh_intervals(every: object) -> tuple[int, int]:
    """Returns steps between two gatherings of factors, and gatherings between two inversions.

    Args:
        every: steps between two refreshes, ≥ 1, or a pair (gather, invert) of such numbers of
            steps. Inversions happen at a gathering: the second is rounded up to one.

    Raises:
        NewtritonError: `every` is neither.
    """
    pair = every if isinstance(every, tuple) and len(every) == 2 else (every, every)
    try:
        gather, invert = (check_count("every", steps) for steps in pair)
    except NewtritonError:
        raise NewtritonError(
            f"every is {quoted(every)}: give steps ≥ 1, or a pair (gather, invert)"
        ) from None
    return gather, max(1, -(-invert // gather))


RELATIVE, ABSOLUTE = 0.1, 0.01  # the first γ in the units of `curvatures.units`, and without


def first_damping(damping: float | None, noise: str | None) -> tuple[float, bool]:
    """Returns a preset's first γ, and whether it is relative: unless one is given, with noise."""
    if damping is not None:
        return damping, False
    return (ABSOLUTE, False) if noise is None else (RELATIVE, True)


class FITRE(SecondOrder):
    """FITRE (Kylasa et al. 2020): a trust region along the K-FAC direction, on the exact Hessian.

    With r = (C + γI)⁻¹∇h by Kronecker factors C, the step minimises ∇hᵀs + ½sᵀHs along r, or over
    r and ∇h, in the ball ‖s‖ ≤ Δ (Algorithm 1). Δ doubles where ρ = (actual decrease)/(predicted
    decrease) ≥ ¾ and halves where ρ < ¼.

    By default steps are judged against the noise of the mini-batch (`rules.noise`), and no number
    has a unit: γ starts at 0.1 of the mean curvature (`curvatures.units`) and follows its model,
    Δ is the solver's own step times a factor that follows ρ, and averaged gradients take the place
    of momentum. With `noise=None` the method is the paper's, with γ = 0.01, Δ_max = 10 and μ = 0.9
    from its grids and runs, unless they are given. A number that is given is absolute, and stays.

    Args:
        model: the model to be trained.
        damping: γ ≥ 0, added to the curvature together with the model's weight decay.
        max_radius: Δ_max > 0 of the trust region, in the units of the parameters.
        initial_radius: Δ₀ ≤ Δ_max; Δ_max unless given.
        case: "kfac", "kfac+gradient" or "subspace", see `TrustRegion`.
        momentum: μ, 0 ≤ μ < 1; 0 unless given, 0.9 without noise.
        factors: the kind of factors: "kfac" (labels drawn from the model), "empirical", "ekfac", ….
        every: steps between two refreshes of the factors, ≥ 1; a pair (gather, invert) sets both
            apart.
        moving_average: θ of the factors, 0 ≤ θ < 1.
        burn_in: the first steps, each of which gathers and inverts; 10 unless given. Without noise
            it is 1, the paper's start from the very first mini-batch; its other one, from a larger
            sample, is `bootstrap` and a burn-in of 0.
        reject_below: ρ below which a step is rejected, 0 ≤ ρ ≤ ¾; FITRE's code uses 1e-4.
        noise: "wiener", see `rules.noise`, or None for the paper's method.
        sharing: what becomes of a layer's positions, "expand" or "reduce", see
            `Linearization.kronecker_factors`.
        max_factor: the most rows of a factor; of a larger one the diagonal is kept.
        max_copies: the most backward copies of factors with a root of B.
        micro_batch: the most samples that are taken at once, see `SecondOrder`.
        seed: the seed of the labels that are drawn.

    Raises:
        NewtritonError: an option is unknown or out of its range, or the loss lacks the factors.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> optimizer = nt.FITRE(model)
        >>> losses = [optimizer.step(x, y).loss for _ in range(4)]
        >>> losses[-1] < losses[0]
        True
    """

    def __init__(
        self,
        model: Model,
        damping: float | None = None,
        max_radius: float | None = None,
        *,
        initial_radius: float | None = None,
        case: str = "kfac",
        momentum: float | None = None,
        factors: str = "kfac",
        every: Every = 5,
        moving_average: float = 0.9,
        burn_in: int | None = None,
        reject_below: float = 0.25,
        noise: str | None = "wiener",
        sharing: str = "expand",
        max_factor: int = MAX_FACTOR,
        max_copies: int = MAX_COPIES,
        micro_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        gather, invert = refresh_intervals(every)
        first, relative = first_damping(damping, noise)
        literal = noise is None
        if burn_in is None:
            burn_in = 1 if literal else 10
        curvature = KroneckerCurvature(
            model,
            factors,
            moving_average=moving_average,
            every=gather,
            burn_in=burn_in,
            seed=seed,
            relative=relative,
            sharing=sharing,
            max_factor=max_factor,
            max_copies=max_copies,
            refresh=invert,
        )
        rule = TrustRegion(
            10.0 if max_radius is None and literal else max_radius,
            initial_radius=initial_radius,
            case=case,
            momentum=(0.9 if literal else 0.0) if momentum is None else momentum,
            reject_below=reject_below,
        )
        solver = KFI(invert)
        super().__init__(
            model,
            curvature,
            solver,
            rule,
            first,
            noise=noise,
            follow=relative,
            micro_batch=micro_batch,
        )


class KFAC(SecondOrder):
    """K-FAC (Martens & Grosse 2015): the exact model along its direction and the last step.

    With x = (C + γI)⁻¹∇h by Kronecker factors C, the step is s = −αx + μ·(last step) with α and μ
    that minimise ∇hᵀs + ½sᵀ(B + λI)s, B the exact Gauss–Newton matrix (section 7).

    By default steps are judged against the noise of the mini-batch (`rules.noise`): averaged
    gradients take the place of momentum, a trust region of the solver's own step that of λ
    (`TrustRegion`), and γ starts at 0.1 of the mean curvature (`curvatures.units`), so that no
    number has a unit. γ is the best of three at steps that lie ever farther apart.

    With `noise=None` the method is the paper's. γ and λ are additive dampings; both start at λ₀ and
    follow the model's success: λ by ρ every 5 steps, γ by the best of three every 20 (sections 6.5
    and 6.6; the paper's γ is the root of ours). λ₀ is 0.01, not the paper's 150, from which λ needs
    a hundred steps to fall to 1. A damping that is given is absolute, and brings λ and momentum
    back, noise or not.

    Args:
        model: the model to be trained.
        damping: the first γ and λ, λ₀ ≥ 0; one that is given is absolute, and brings λ and momentum
            back.
        momentum: whether the last step is part of the model; not unless given or without noise.
        samples: label draws per input, ≥ 1.
        every: steps between two refreshes of the factors, ≥ 1, or a pair (gather, invert).
        moving_average: θ of the factors, 0 ≤ θ < 1; a plain average for the first `burn_in` steps.
        burn_in: the first steps, each of which gathers and inverts.
        average: the decay of the Polyak average of the parameters, in [0, 1); None for none.
        noise: "wiener", see `rules.noise`, or None for the paper's method.
        sharing: what becomes of a layer's positions, "expand" or "reduce", see
            `Linearization.kronecker_factors`.
        max_factor: the most rows of a factor; of a larger one the diagonal is kept.
        max_copies: the most backward copies of factors with a root of B.
        micro_batch: the most samples that are taken at once, see `SecondOrder`.
        seed: the seed of the labels that are drawn.

    Raises:
        NewtritonError: an option is out of its range, or the loss lacks the factors.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> optimizer = nt.KFAC(model)
        >>> losses = [optimizer.step(x, y).loss for _ in range(4)]
        >>> losses[-1] < losses[0]
        True
    """

    factors = "kfac"

    def __init__(
        self,
        model: Model,
        damping: float | None = None,
        *,
        momentum: bool | None = None,
        samples: int = 1,
        every: Every = (1, 20),
        moving_average: float = 0.95,
        burn_in: int = 20,
        average: float | None = None,
        noise: str | None = "wiener",
        sharing: str = "expand",
        max_factor: int = MAX_FACTOR,
        max_copies: int = MAX_COPIES,
        micro_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        gather, invert = refresh_intervals(every)
        first, relative = first_damping(damping, noise)
        curvature = KroneckerCurvature(
            model,
            self.factors,
            samples=samples,
            moving_average=moving_average,
            every=gather,
            burn_in=burn_in,
            seed=seed,
            relative=relative,
            sharing=sharing,
            max_factor=max_factor,
            max_copies=max_copies,
        )
        rule: StepRule
        if momentum is not None:
            check_flag("momentum", momentum)
        if relative and not momentum:
            rule = TrustRegion(None, model="ggn", reject_below=0.0)
        else:
            rule = QuadraticModel(first, momentum=True if momentum is None else momentum)
        super().__init__(
            model,
            curvature,
            KFI(invert),
            rule,
            first,
            average=None if average is None else PolyakAverage(average),
            noise=noise,
            follow=relative,
            micro_batch=micro_batch,
        )


class KFRA(KFAC):
    """KFRA (Botev, Ritter & Barber 2017): recursive factors, α* of the exact model.

    As K-FAC, with factors whose G is computed by a recursion over layers in place of drawn labels.
    Appendix B: τ (the rule's `damping`) follows ρ every 5 steps, γ is the best of three every 20,
    β of the Polyak average is min(0.95, 1 − 1/t). The paper found momentum unstable and has none;
    without noise, within the bounds of `QuadraticModel`, it is stable and there by default.

    Args:
        model: the model to be trained: a chain of layers, since the recursion knows no branches.
        damping: the first γ and τ, ≥ 0, as in `KFAC`.
        momentum: whether the last step is part of the model, as in `KFAC`.
        every: steps between two refreshes of the factors, ≥ 1, or a pair (gather, invert).
        moving_average: θ of the factors, 0 ≤ θ < 1; the paper's is 0.9, or 0 for the last batch
            alone.
        burn_in: the first steps, averaged plainly.
        average: the decay of the Polyak average, in [0, 1); None for none.
        noise: "wiener", see `rules.noise`, or None for the paper's method.
        sharing: what becomes of a layer's positions, "expand" or "reduce", see
            `Linearization.kronecker_factors`.
        max_factor: the most rows of a factor; of a larger one the diagonal is kept.
        max_copies: the most backward copies of factors with a root of B.
        micro_batch: the most samples that are taken at once, see `SecondOrder`.
        seed: the seed of labels, where the factors draw some.

    Raises:
        NewtritonError: an option is out of its range, the loss lacks the factors, or the network is
            no chain of layers that the recursion knows.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> optimizer = nt.KFRA(model)
        >>> losses = [optimizer.step(x, y).loss for _ in range(4)]
        >>> losses[-1] < losses[0]
        True
    """

    factors = "kfra"

    def __init__(
        self,
        model: Model,
        damping: float | None = None,
        *,
        momentum: bool | None = None,
        every: Every = 5,
        moving_average: float = 0.9,
        burn_in: int = 10,
        average: float | None = 0.95,
        noise: str | None = "wiener",
        sharing: str = "expand",
        max_factor: int = MAX_FACTOR,
        max_copies: int = MAX_COPIES,
        micro_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model,
            damping,
            momentum=momentum,
            every=every,
            moving_average=moving_average,
            burn_in=burn_in,
            average=average,
            noise=noise,
            sharing=sharing,
            max_factor=max_factor,
            max_copies=max_copies,
            micro_batch=micro_batch,
            seed=seed,
        )


class KFLR(KFRA):
    """KFLR (Botev, Ritter & Barber 2017, section 3.4): KFRA's rule on exact low-rank factors.

    G = E[Jᵀ B J] with a root of B = ∇²_z ℓ, one backward copy per column: no labels are drawn, and
    any network will do. Options are those of `KFRA`.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> optimizer = nt.KFLR(model)
        >>> losses = [optimizer.step(x, y).loss for _ in range(4)]
        >>> losses[-1] < losses[0]
        True
    """

    factors = "kflr"


class EACG(SecondOrder):
    """EA-CG (Chen, Chou & Chang 2018): ((1 − α)C + αI)d = −g by CG, E[h]E[h]ᵀ in place of E[hhᵀ].

    C is block-diagonal with blocks E[h]E[h]ᵀ ⊗ G of the inputs h of a layer (eqs. 10 and 11b), and
    θ ← θ + ηd.

    The defaults are the best of the paper's grid on digits, over three sigmoid networks and a CNN
    (`bench/eacg_grid.py`). η/α is the rate along what the mean of the inputs does not see: sigmoid
    networks train faster at 5 and 10 (η = 0.1, α = 0.02 and 0.01), the CNN does not train above 1.
    By default steps are judged against the noise of the mini-batch (`rules.noise`), and one that
    raises the loss of its batch is refused and η halved, which steps that are taken double again.

    Args:
        model: the model to be trained.
        lr: η > 0; the paper's grid is 0.05, 0.1, 0.2.
        alpha: α, 0 ≤ α < 1; the grid is 0.01, 0.02, 0.05, 0.1.
        factors: the kind of factors, see `Linearization.kronecker_factors`.
        limit: CG iterations in a layer, ≥ 1; the grid is 5, 10, 20, 50.
        tolerance: the relative residual at which CG stops; the grid is 1e-10, 1e-5, 1e-2, 1e-1.
        momentum: μ of the steps, 0 ≤ μ < 1; the paper has none.
        apart: whether weight and bias are blocks of their own, as in the paper, each solved by its
            own iterations.
        pos_eig: the γ ≤ 0 of Pos-Eig (eq. 8), which multiplies negative eigenvalues of "pch-1" and
            "pch-2" factors; None for −1 and 0.
        noise: "wiener", see `rules.noise`, or None for the paper's method.
        sharing: what becomes of a layer's positions, "expand" or "reduce", see
            `Linearization.kronecker_factors`.
        max_factor: the most rows of a factor; of a larger one the diagonal is kept.
        max_copies: the most backward copies of factors with a root of B.
        micro_batch: the most samples that are taken at once, see `SecondOrder`.
        seed: the seed of labels, where the factors draw some.

    Raises:
        NewtritonError: an option is unknown or out of its range, or the loss lacks the factors.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> optimizer = nt.EACG(model)
        >>> losses = [optimizer.step(x, y).loss for _ in range(4)]
        >>> losses[-1] < losses[0]
        True
    """

    def __init__(
        self,
        model: Model,
        lr: float = 0.05,
        alpha: float = 0.05,
        *,
        factors: str = "pch-1",
        limit: int = 10,
        tolerance: float = 1e-5,
        momentum: float = 0.0,
        apart: bool = True,
        pos_eig: float | None = None,
        noise: str | None = "wiener",
        sharing: str = "expand",
        max_factor: int = MAX_FACTOR,
        max_copies: int = MAX_COPIES,
        micro_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        curvature = KroneckerCurvature(
            model,
            factors,
            moving_average=0.0,
            burn_in=0,
            seed=seed,
            inputs="mean",
            apart=apart,
            pos_eig=pos_eig,
            sharing=sharing,
            max_factor=max_factor,
            max_copies=max_copies,
        )
        solver = MeanCG(limit, tolerance)
        rule = Fixed(lr, momentum, refuse=noise is not None)
        super().__init__(
            model,
            curvature,
            solver,
            rule,
            alpha,
            form="convex",
            noise=noise,
            micro_batch=micro_batch,
        )


class NewtonCG(SecondOrder):
    """Sub-sampled Newton with CG and a line search (Wang, Tan & Lin 2020).

    (G^S + λI)d = −∇h with the gradient of all data and the curvature G^S of a sample; backtracking
    on all data; λ follows ρ. `step(data)` takes an iterable of batches, each pass in mini-batches:
    function and gradient are sums over subsets S_1, …, S_R, the last of which is the sample, whose
    forward pass the products start from (section 3.5).

    Args:
        model: the model to be trained; the paper's 1/C is its weight decay.
        damping: the first λ ≥ 0.
        sample: the share of the samples that curvature is taken on, 0 < sample ≤ 1.
        curvature: "ggn" or "hessian".
        product: the form of Gauss–Newton products, see `MatrixFree`.
        limit: the most CG iterations, ≥ 1.
        tolerance: σ of ‖(G + λI)d + ∇h‖ ≤ σ‖∇h‖, 0 ≤ σ < 1.
        progress: ε of Martens' rule (0.0005 in his paper); 0 leaves it out.
        preconditioner: the kind of Kronecker factors to precondition with; None for none.
        noise: "wiener", see `rules.noise`, for steps on batches; None for the paper's method.
        micro_batch: the most samples that are taken at once, see `SecondOrder`.
        seed: the seed of the samples that are drawn.

    Raises:
        NewtritonError: an option is unknown or out of its range, or the loss lacks the curvature.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> optimizer = nt.NewtonCG(model)
        >>> losses = [optimizer.step(x, y).loss for _ in range(4)]
        >>> losses[-1] < losses[0]
        True
    """

    def __init__(
        self,
        model: Model,
        damping: float = 1.0,
        *,
        sample: float = 0.05,
        curvature: str = "ggn",
        product: str = "auto",
        limit: int = 250,
        tolerance: float = 0.1,
        progress: float = 0.0,
        preconditioner: str | None = None,
        noise: str | None = "wiener",
        micro_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        free = MatrixFree(model, curvature, product=product)
        operator: Curvature = free
        inner = None
        if preconditioner is not None:
            factors = KroneckerCurvature(model, preconditioner, seed=seed)
            operator, inner = WithPreconditioner(free, factors), KFI()
        solver = TruncatedCG(limit, tolerance, progress, inner)
        rule = LevenbergMarquardt(curvature)
        super().__init__(
            model,
            operator,
            solver,
            rule,
            damping,
            sample=sample,
            noise=noise,
            micro_batch=micro_batch,
            seed=seed,
        )

    @property
    def takes_data(self) -> bool:
        """Whether a step is meant for all data: it is, whatever the sample."""
        return True
