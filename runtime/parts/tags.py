"""What the parts of an optimizer rely on in each other, and what to do where it is missing.

A curvature, a block and a step rule offer tags; a solver and a step rule need some. Parts go
together where `needs <= tags`, so no part has to know another one by name.
"""

from __future__ import annotations

from enum import Enum


class Tag(Enum):
    """A property that one part offers and another may need.

    The value says what is promised. Where several are missing, the first one here is reported.

    Attributes:
        BLOCKS: offered by curvatures; `Curvature.blocks` is there.
        MEANS: offered by curvatures and blocks.
        DIAGONAL: offered by blocks.
        CONSTANT_DAMPING: offered by step rules.
        SEMIDEFINITE: offered by curvatures and blocks.
        RADIUS: offered by step rules; `StepRule.radius` is there.
        PRECONDITIONER: offered by curvatures; `Curvature.preconditioner` is there.

    Examples:
        >>> import newtriton as nt
        >>> nt.Steihaug.needs <= nt.TrustRegion().tags, nt.Steihaug.needs <= nt.Fixed().tags
        (True, False)
    """

    BLOCKS = "the curvature has a block per layer, which can be factorised alone"
    MEANS = "blocks keep the mean of a layer's inputs in place of their second moment"
    DIAGONAL = "a solve with the block costs no more than a division per element"
    CONSTANT_DAMPING = "the rule leaves the damping as it is"
    SEMIDEFINITE = "there is no negative curvature"
    RADIUS = "the rule keeps the radius of a trust region"
    PRECONDITIONER = "the curvature brings a second one that is easy to solve with"


MISSING: dict[Tag, str] = {
    Tag.BLOCKS: (
        "this solver works on Kronecker factors: take solver='truncated-cg' (or 'steihaug' with "
        "the trust region), or a Kronecker curvature like 'kfac'"
    ),
    Tag.MEANS: (
        "EA-CG works on the mean of the inputs: KroneckerCurvature(model, kind, inputs='mean'), or "
        "solver='cg' for full factors"
    ),
    Tag.CONSTANT_DAMPING: (
        "this rule scales the damping, which must stay below 1 in the form (1 − α)C + αI: take "
        "form='additive'"
    ),
    Tag.SEMIDEFINITE: (
        "a step along almost no curvature, or along negative one, has no bound here: take a solver "
        "and a rule that measure their steps, like 'truncated-cg' and 'trust-region', or the "
        "curvature 'ggn'"
    ),
    Tag.RADIUS: (
        "this solver stops at a radius and the rule has none: take rule='trust-region', or "
        "solver='truncated-cg'"
    ),
    Tag.PRECONDITIONER: (
        "the solver has a preconditioner and the curvature brings no factors for it: wrap it, "
        "WithPreconditioner(curvature, KroneckerCurvature(model))"
    ),
}
