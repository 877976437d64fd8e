"""Instances from a folder of predictions, without the network."""

from pathlib import Path

from nnunetv2.configuration import default_num_processes

from nnunetv2_conflunet.inference.case_files import InstanceFiles
from nnunetv2_conflunet.inference.instances import instances_of_case
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import refuse_limits
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import atomic_path, is_file_name, json_text, read_json
from nnunetv2_conflunet.utilities.parallel import try_cases
from nnunetv2_conflunet.utilities.writable import require_writable

SETTINGS_FILE = "instantiation.json"


def instantiate_folder(
    folder: Path,
    output: Path,
    settings: InstantiationSettings,
    *,
    heads: Path | None = None,
    num_processes: int = default_num_processes,
    overwrite: bool = False,
) -> tuple[dict[str, dict], dict[str, str]]:
    """Make the instances of every case in a folder and write maps, lesion tables and the settings.

    A case is skipped if its files exist, are newer than their sources, and were made with the same settings from the
    same folder.

    Args:
        folder: output of ``nnUNetv2_predict`` (``--save_probabilities`` for ACLS and center-offset), or masks.
        output: folder for ``<case><file_ending>``, ``<case>.csv`` and ``instantiation.json``.
        settings: how to make instances.
        heads: the original prediction with heads and probabilities, if `folder` holds only its postprocessed masks.
        num_processes: worker processes.
        overwrite: redo every case, and replace maps that this function did not write.

    Returns:
        The report of each case made in this call (see :class:`Instantiation`), and the reason for each failed case.

    Raises:
        InputError: there is no input for the method, the output folder holds other files, or another call has replaced
            the record in the meantime.
    """
    prediction = PredictionFolder.open(folder, heads)
    prediction.check_method(settings.method)
    if settings.min_confidence and not prediction.has_saved("acls"):
        raise InputError(
            f"{prediction.heads_folder} holds no probabilities, which min_confidence {settings.min_confidence:g} "
            "needs. Predict with --save_probabilities, or set it to 0."
        )
    found = prediction.case_folder()
    if found.note:
        print(found.note)
    cases = [InstanceFiles(output, case, prediction.file_ending) for case in found.files]
    record = _prepare_output(output, prediction, cases, settings, overwrite)
    left = [case_files for case_files in cases if not _is_up_to_date(case_files, prediction)]
    if len(left) < len(cases):
        print(f"{len(cases) - len(left)} of {len(cases)} cases were already done.")
    # One broken case must not stop the others.
    calls = {case_files.case: (prediction, case_files, settings) for case_files in left}
    made = try_cases(_make_case, calls, num_processes, "Instances", survived=Exception)
    if not record.items() <= _read_record(output / SETTINGS_FILE).items():
        raise InputError(
            f"Another command has written to {output} meanwhile, by other settings or from another folder, so its maps "
            "may be of both. Run one of them again with --overwrite."
        )
    return made


def _make_case(prediction: PredictionFolder, files: InstanceFiles, settings: InstantiationSettings) -> dict:
    """Write the files of a case and return its report."""
    output = prediction.read_case(files.case, settings.method)
    refuse_limits(output.foreground.shape, output.properties["spacing"], settings.limits)
    made = instances_of_case(output, settings)
    made.write(files, prediction.reader())
    return made.result.report


def _prepare_output(
    output: Path,
    prediction: PredictionFolder,
    cases: list[InstanceFiles],
    settings: InstantiationSettings,
    overwrite: bool,
) -> dict:
    """Leave only maps made with these settings in the output folder, and record the settings there.

    Returns:
        The record, without the cases.
    """
    if output.resolve() in (prediction.folder.resolve(), prediction.heads_folder.resolve()):
        raise InputError(f"-o {output} is the input folder; give another one, since maps are named like the masks.")
    require_writable(output / SETTINGS_FILE)
    sources = {"input": str(prediction.folder.resolve()), "heads": str(prediction.heads_folder.resolve())}
    record = {**sources, "settings": settings.to_dict()}
    path = output / SETTINGS_FILE
    before = _read_record(path) if path.is_file() else {}
    foreign = [] if before else [case_files.case for case_files in cases if case_files.map.exists()]
    if foreign and not overwrite:
        raise InputError(
            f"{output} holds maps of {list_some(foreign)} but no {SETTINGS_FILE}: they were not made by this command. "
            "Give another folder, or --overwrite."
        )
    before |= {"settings": InstantiationSettings.completed(before.get("settings", {}))}
    is_other = overwrite or any(before.get(key) != value for key, value in record.items())
    now = [case_files.case for case_files in cases]
    # Maps of cases that have left the input stay.
    known = sorted({*before.get("cases", []), *now})
    with atomic_path(path) as temporary:
        # Before anything is removed, so that a full disk causes no loss.
        temporary.write_text(json_text(record | {"cases": now if is_other else known}), encoding="utf-8")
        if is_other:
            for case in known:
                InstanceFiles(output, case, prediction.file_ending).remove()
    return record


def _read_record(path: Path) -> dict:
    """The record of an earlier call. Files are deleted by its case names, so these must be plain file names."""
    record = read_json(path)
    if isinstance(record, dict) and isinstance(record.get("settings", {}), dict):
        cases = record.get("cases", [])
        if isinstance(cases, list) and all(map(is_file_name, cases)):
            return record
    raise InputError(f"{path} is not a record of this command; give another folder, or remove that file.")


def _is_up_to_date(files: InstanceFiles, prediction: PredictionFolder) -> bool:
    if not files.are_done():
        return False
    made, case = files.map.stat().st_mtime, files.case
    sources = prediction.segmentation_file(case), prediction.probability_file(case), prediction.heads_file(case)
    return all(source.stat().st_mtime <= made for source in sources if source.is_file())
