"""The papers and their experiments by name."""

from __future__ import annotations

from . import eacg_hessian, eacg_training
from .experiment import Experiment, Paper

PAPERS: dict[str, Paper] = {
    "fitre": Paper(
        "Kylasa, Fang, Xu, Roosta, Mahoney & Grama (2020). FITRE: Fisher Informed Trust-region "
        "Method for Training Deep Neural Networks.",
        {},
    ),
    "newton-cnn": Paper(
        "Wang, Tan & Lin (2020). Newton Methods for Convolutional Neural Networks.", {}
    ),
    "ea-cg": Paper(
        "Chen, Chou & Chang (2018). EA-CG: An Approximate Second-Order Method for Training "
        "Fully-Connected Neural Networks.",
        {
            "eacg-curvature": eacg_training.CURVATURE,
            "eacg-solver": eacg_training.SOLVER,
            "eacg-hessian": eacg_hessian.HESSIAN,
        },
    ),
    "kfra": Paper(
        "Botev, Ritter & Barber (2017). Practical Gauss-Newton Optimisation for Deep Learning.", {}
    ),
}

EXPERIMENTS: dict[str, Experiment] = {
    name: experiment for paper in PAPERS.values() for name, experiment in paper.experiments.items()
}
