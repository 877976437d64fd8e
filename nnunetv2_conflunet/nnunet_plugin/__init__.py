"""Code that replaces or reads nnU-Net's internals; :mod:`.holds` lists everything that the package relies on.

These modules import nnU-Net and :mod:`nnunetv2_conflunet.utilities` only; callers pass in everything else.
"""
