"""The names that nnU-Net's search for ``-tr`` finds. This folder is what ``nnUNet_extTrainer`` must name.

nnU-Net imports every module of that folder and then forgets those that lie under it. So it holds this file and
nothing else, and the classes live in the installed package, where worker processes can unpickle them.
"""

import nnunetv2_conflunet.trainers as _trainers

globals().update({name: getattr(_trainers, name) for name in _trainers.__all__})
