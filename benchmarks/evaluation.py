"""Cost of the evaluation, as ratios within one run.

    python benchmarks/evaluation.py                      a pair of simulated maps
    python benchmarks/evaluation.py --data FOLDER        and a folder of real masks, as a dataset of 100 cases

Processor seconds of one process, medians of several repetitions. Compared with decoding the two files, with one pass
over both arrays and with a naive evaluation of one mask per lesion; `evaluation_parity.py` compares with panoptica.
"""

import argparse
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
from measuring import SHAPE, SPACING_MM, ball_pair, in_own_process, median_seconds, reset_peak, resident_mib
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from scipy import ndimage

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.evaluation.cohort.cases import evaluate_pairs
from nnunetv2_conflunet.evaluation.cohort.pairing import Pair, pair_folders
from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.imageio import read_instances
from nnunetv2_conflunet.utilities.parallel import run_cases


def naive_evaluation(prediction, reference, threshold=0.1):
    """Matches, IoU and Dice with one full-size mask a lesion."""
    matched = {}
    for predicted in np.unique(prediction)[1:]:
        p_mask = prediction == predicted
        best = (0, None)
        for label in np.unique(reference[p_mask]):
            if label:
                r_mask = reference == label
                best = max(best, ((p_mask & r_mask).sum() / (p_mask | r_mask).sum(), label))
        if best[0] > threshold and best[0] > matched.get(best[1], (0,))[0]:
            matched[best[1]] = best[0], predicted
    return matched


def peak_above_arrays(n_lesions):
    """Peak resident MiB of one evaluation above the resident size before it."""
    prediction, reference = ball_pair(n_lesions)
    evaluate_case(prediction[:20], reference[:20], SPACING_MM)
    reset_peak()
    before = resident_mib("VmRSS")
    evaluate_case(prediction, reference, SPACING_MM)
    return resident_mib() - before


def single_pair():
    prediction, reference = ball_pair(60)
    crowded = ball_pair(300)
    fortran = [np.asfortranarray(instances) for instances in (prediction, reference)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.nii.gz" for name in ("prediction", "reference")]
        for file, instances in zip(files, (prediction, reference), strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(instances.astype(np.uint16)), str(file))
        decoding = median_seconds(lambda: [sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files])
        reader = SimpleITKIO()
        reading = median_seconds(lambda: [read_instances(file, reader) for file in files])
    rows = {
        "one max() over both arrays": median_seconds(lambda: (prediction.max(), reference.max())),
        "decoding both files (SimpleITK)": decoding,
        "reading both files (with nnU-Net's reader and the checks)": reading,
        "evaluate_case": median_seconds(lambda: evaluate_case(prediction, reference, SPACING_MM)),
        "evaluate_case, maps in Fortran order": median_seconds(lambda: evaluate_case(*fortran, SPACING_MM)),
        "evaluate_case, 300 lesions": median_seconds(lambda: evaluate_case(*crowded, SPACING_MM)),
        "naive evaluation, matches only": median_seconds(lambda: naive_evaluation(prediction, reference), 1),
    }
    unit = rows["evaluate_case"]
    print(f"A pair of {SHAPE} maps with 60 lesions; CPU seconds and their ratio to evaluate_case")
    for name, seconds in rows.items():
        print(f"  {name:<60} {seconds:8.4f} s  {seconds / unit:8.2f} x")
    for n_lesions in (60, 300):
        peak = in_own_process(peak_above_arrays, n_lesions)
        print(f"  peak memory above the arrays, {n_lesions} lesions {peak:25.1f} MiB")


def perturbed_dataset(masks, folder):
    """Components of each mask as the reference; of the mask with a noisy surface as the prediction."""
    for file in masks:
        image = sitk.ReadImage(str(file))
        mask = sitk.GetArrayFromImage(image) > 0
        rng = np.random.default_rng(len(file.name))
        noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape, np.float32), 1.5)
        noise /= noise.std()
        depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
        for name, support in (("instancesTr", mask), ("predicted", (depth + 0.6 * noise > 0) & (depth > -3))):
            instances = cc3d.connected_components(support.astype(np.uint8), connectivity=26).astype(np.uint16)
            output = sitk.GetImageFromArray(instances)
            output.CopyInformation(image)
            (folder / name).mkdir(exist_ok=True)
            sitk.WriteImage(output, str(folder / name / file.name), True)


def _read_pair(pair, reader):
    read_instances(pair.reference, reader())
    read_instances(pair.prediction, reader())


def real_folder(data, n_cases, num_processes):
    masks = sorted(data.glob("*.nii.gz"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        perturbed_dataset(masks, folder)
        once = pair_folders(folder / "instancesTr", folder / "predicted")
        pairs = [
            Pair(f"{number:03d}", pair.reference, pair.prediction)
            for number, pair in enumerate(islice(cycle(once.pairs), n_cases))
        ]
        calls = {pair.case: (pair, once.reader) for pair in pairs}
        run_cases(_read_pair, dict(islice(calls.items(), num_processes)), num_processes, "Workers")
        start = time.perf_counter()
        run_cases(_read_pair, calls, num_processes, "Reading")
        reading = time.perf_counter() - start
        start = time.perf_counter()
        results = evaluate_pairs(pairs, once.reader, EvaluationSettings(), num_processes)
        whole = time.perf_counter() - start
    lesions = np.mean([len(result.lesions["id"]) for result in results])
    print(f"{n_cases} cases of {len(masks)} real masks, {lesions:.0f} lesions per case, {num_processes} processes")
    print(f"  reading only {reading:6.1f} s, evaluation {whole:6.1f} s; reading is {100 * reading / whole:.0f} % of it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of binary lesion masks, .nii.gz")
    parser.add_argument("--n_cases", type=int, default=100)
    parser.add_argument("-np", type=int, default=2)
    args = parser.parse_args()
    single_pair()
    if args.data is None or not args.data.is_dir():
        print("No folder of real masks was given with --data: skipping the folder benchmark.")
    else:
        real_folder(args.data, args.n_cases, args.np)
