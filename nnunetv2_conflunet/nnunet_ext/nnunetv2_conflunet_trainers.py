"""The names that nnU-Net's search for ``-tr`` finds. This folder is what ``nnUNet_extTrainer`` must name.

nnU-Net imports every module in that folder and then drops them from ``sys.modules``. So the folder holds this file
only, and the classes live in the installed package, where worker processes can unpickle them.
"""

import nnunetv2_conflunet.trainers as _trainers

globals().update({name: getattr(_trainers, name) for name in _trainers.__all__})
