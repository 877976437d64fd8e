"""What the trainer refuses, with one sentence each, before anything is written."""

from collections.abc import Sequence

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import REMEDY, refuse_limits
from nnunetv2_conflunet.utilities.errors import InputError

# nnU-Net's patches are hardly wider than such a Gaussian.
MOST_VOXELS = 100


def refuse_unsupported(plans: PlansManager, configuration: str) -> None:
    """Raise an InputError for the second stage of a cascade and two-dimensional patches of volumes."""
    manager = plans.get_configuration(configuration)
    if manager.previous_stage_name is not None:
        raise InputError(
            f"{configuration} is the second stage of a cascade, whose input the plugin uses for the instance maps; "
            "train 3d_fullres or 3d_lowres instead."
        )
    n_slices = plans.original_median_shape_after_transp[0]
    if len(manager.patch_size) == 2 and n_slices > 1:
        raise InputError(
            f"{configuration} has two-dimensional patches, but the images of {plans.dataset_name} are volumes "
            f"({n_slices:.0f} slices), whose lesions have centers in three dimensions; train 3d_fullres instead."
        )


def patch_spacing_mm(configuration: ConfigurationManager) -> tuple[float, ...]:
    """Voxel size along the axes of the patches; two-dimensional configurations have none across slices."""
    return tuple(configuration.spacing[-len(configuration.patch_size) :])


def refuse_other_unit(
    plans: PlansManager, configuration: str, settings: InstantiationSettings | None = None, sigma_mm: float = 2.0
) -> None:
    """Raise an InputError for a configuration whose spacing does not seem to be in mm, unlike the trainer's settings.

    Args:
        plans: the plans.
        configuration: its name.
        settings: how the trainer makes instances; its size filter must not remove every possible instance of an image
            of median size. Default: the default size filter, which ``nnUNetTrainerConfLUNet`` uses.
        sigma_mm: of the trainer's heatmap; patches must be wider.
    """
    manager = plans.get_configuration(configuration)
    spacing = patch_spacing_mm(manager)
    shape = manager.configuration.get("median_image_size_in_voxels", manager.patch_size)[-len(spacing) :]
    try:
        refuse_wide(spacing, sigma_mm)
        limits = (settings or InstantiationSettings()).limits
        refuse_limits([max(1, round(length)) for length in shape], spacing, limits)
    except InputError as error:
        raise InputError(f"{plans.dataset_name}, {configuration}: {error}") from error


def refuse_wide(spacing_mm: Sequence[float], sigma_mm: float) -> None:
    """Refuse Gaussians whose standard deviation is more than :data:`MOST_VOXELS` voxels.

    Raises:
        InputError: states their width in voxels and the remedy.
    """
    finest = float(min(spacing_mm))
    if sigma_mm > MOST_VOXELS * finest:
        raise InputError(
            f"sigma_mm is {sigma_mm:g} mm, {sigma_mm / finest:,.0f} voxels of {finest:g} mm, so no center could be "
            f"learned. {REMEDY}; or set sigma_mm and the sizes of the instantiation to values that suit these lengths."
        )


def refuse_only_unknown(counts: Sequence[tuple[int, int]]) -> None:
    """Refuse a dataset without a known lesion whose cases have voxels of unknown instances.

    Args:
        counts: for each case, how much of it is known lesion, and its number of voxels of unknown instances.

    Raises:
        InputError: states these numbers and the remedy.
    """
    n_known, n_unknown = (sum(of_case[i] for of_case in counts) for i in range(2))
    if n_unknown and not n_known:
        n_cases = sum(of_case[1] > 0 for of_case in counts)
        raise InputError(
            f"Every lesion voxel of the dataset is of an unknown instance ({n_unknown} voxels in {n_cases} of "
            f"{len(counts)} cases), so no lesion has a center that could be learned. Give ids of their own to lesions "
            "that are known as a whole, such as those that touch no other one."
        )
