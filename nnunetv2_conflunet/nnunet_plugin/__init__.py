"""Every hold on nnU-Net's inside: what replaces or reads it, and in :mod:`.holds` the list of all that is relied on.

This room knows nnU-Net and :mod:`nnunetv2_conflunet.utilities` only; the rooms above hand in what is theirs.
"""
