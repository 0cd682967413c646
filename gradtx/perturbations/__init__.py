"""Noise: distributions, and functions made smooth by averaging over it."""

from gradtx.perturbations._distributions import (
    Gumbel as Gumbel,
    MultiNormalDiagFromLogScale as MultiNormalDiagFromLogScale,
    Normal as Normal,
    multi_normal as multi_normal,
)
from gradtx.perturbations._perturbed import make_perturbed_fun as make_perturbed_fun
