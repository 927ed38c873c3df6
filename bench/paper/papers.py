"""The papers and their experiments by name."""

from __future__ import annotations

from ..protocol.experiment import Experiment, Paper
from . import newton_product, newton_training
from .eacg_hessian import HESSIAN
from .eacg_training import CURVATURE, SOLVER
from .fitre_batch_norm import BATCH_NORM
from .fitre_convergence import CONVERGENCE
from .fitre_robustness import ROBUSTNESS
from .kfra_alignment import ALIGNMENT
from .kfra_autoencoders import AUTOENCODERS
from .kfra_even_odd import EVEN_ODD
from .kfra_maxima import MAXIMA
from .kfra_rank import RANK

PAPERS: dict[str, Paper] = {
    "fitre": Paper(
        "Kylasa, Fang, Xu, Roosta, Mahoney & Grama (2020). FITRE: Fisher Informed Trust-region "
        "Method for Training Deep Neural Networks.",
        {
            "fitre-convergence": CONVERGENCE,
            "fitre-robustness": ROBUSTNESS,
            "fitre-batch-norm": BATCH_NORM,
        },
    ),
    "newton-cnn": Paper(
        "Wang, Tan & Lin (2020). Newton Methods for Convolutional Neural Networks.",
        newton_training.EXPERIMENTS | newton_product.EXPERIMENTS,
    ),
    "ea-cg": Paper(
        "Chen, Chou & Chang (2018). EA-CG: An Approximate Second-Order Method for Training "
        "Fully-Connected Neural Networks.",
        {
            "eacg-curvature": CURVATURE,
            "eacg-solver": SOLVER,
            "eacg-hessian": HESSIAN,
        },
    ),
    "kfra": Paper(
        "Botev, Ritter & Barber (2017). Practical Gauss-Newton Optimisation for Deep Learning.",
        {
            "kfra-autoencoders": AUTOENCODERS,
            "kfra-alignment": ALIGNMENT,
            "kfra-even-odd": EVEN_ODD,
            "kfra-rank": RANK,
            "kfra-maxima": MAXIMA,
        },
    ),
}

EXPERIMENTS: dict[str, Experiment] = {
    name: experiment for paper in PAPERS.values() for name, experiment in paper.experiments.items()
}
