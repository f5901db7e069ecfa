"""Persistent rollouts: chains that live across training steps, so that rolling out costs no forward of its own.

A chain sits at one place of the batch. Each training step trains on its state, and the very same forward, without its
gradient, is the prediction with which its solver goes on by one step. When its way is over it begins anew, with the
image and the noise that the batch has at its place. The weights change a little under it, as little as in the steps
that it lives. (The idea is that of persistent contrastive divergence.)
"""

from .keeper import Keeper
from .levels import Ways, draw_ways
from .life import Ride, advanced, renewed, seated
from .state import Chains, kind_of

__all__ = ["Chains", "Keeper", "Ride", "Ways", "advanced", "draw_ways", "kind_of", "renewed", "seated"]
