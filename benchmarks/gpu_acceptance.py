"""The plugin on a GPU, compared to stock nnU-Net: one command of at most nine minutes.

    python benchmarks/gpu_acceptance.py OUT DATA
    python benchmarks/gpu_acceptance.py OUT DATA --device cpu --tiny

DATA is the folder of the open MS database (docs/open_ms_cohort.md). The parts, each with a file in OUT/results:

- environment: driver, card, versions
- tests: the tests that build a trainer, a loss or a predictor, on the device
- cohort: lesions of real shape in real FLAIR with known instances, planned and preprocessed
- speed: training steps of nnU-Net's trainer and of ours, with and without torch.compile
- training: a training in the remaining time; instances of test patients by CC, ACLS, the paper's rule and the model's
- prediction: a volume of 182 x 218 x 182 by both predictors, with mirroring; seconds and memory; nnU-Net's command for
  the test patients, with and without the heads

When the command is run again, finished parts are skipped and an interrupted training resumes. OUT/table.md holds the
final output. `--tiny` tests the script itself, with few patients, small patches and few steps.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing.pool import ThreadPool
from pathlib import Path

import torch
from acceptance.table import acceptance_table
from table1 import table_of_seeds

from nnunetv2_conflunet.nnunet_plugin.project import LIMITS, Project, small_configuration
from nnunetv2_conflunet.utilities.files import atomic_path, read_json, write_json

HERE = Path(__file__).resolve().parent
# Parts of a group run in parallel: the tests need the device, the cohort the processor.
GROUPS = (("environment",), ("tests", "cohort"), ("speed",), ("training",), ("prediction",))
PARTS = tuple(part for group in GROUPS for part in group)
DATASET = 111
TRAINER = "nnUNetTrainerBenchmarkConfLUNet"
# How instances are made from the same masks: name in the table, options of nnUNetv2_conflunet_instantiate.
PAPERS_CENTERS = "--heatmap_threshold 0.1 --window_mm 3 --min_prominence 0 --min_consistency 0"
METHODS = {
    "CC": "-m cc",
    "ACLS": "-m acls",
    "paper's rule": f"-m center_offset {PAPERS_CENTERS} --pieces offsets --no_merging",
    "center-offset": "-m center_offset",
}
# After the last training step: validation, test patients, evaluation, and the part "prediction".
SECONDS_AFTER_TRAINING = {"training": 130, "prediction": 150}
# Imports, start of the loader, torch.compile, first steps; between epochs nnU-Net draws plots and saves the network.
SECONDS_BEFORE_TRAINING, SECONDS_BETWEEN_EPOCHS = 60, 2.5
ITERATIONS_PER_EPOCH, VALIDATION_ITERATIONS = 250, 5


def main():
    args = parse()
    acceptance = Acceptance(args)
    failed = []
    for group in GROUPS:
        parts = [part for part in group if part in args.parts and not acceptance.has(part)]
        with ThreadPool(len(group)) as pool:
            succeeded = pool.map(acceptance.run, parts)
        failed += [part for part, success in zip(parts, succeeded, strict=True) if not success]
    print(f"\n{acceptance.write_table()}")
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


class Acceptance:
    """The parts and their results so far."""

    def __init__(self, args):
        self.args, self.start = args, time.time()
        self.out = Path(args.out).resolve()
        self.results = self.out / "results"
        self.results.mkdir(parents=True, exist_ok=True)
        limits = LIMITS if args.device == "cpu" else {}
        self.project = Project(self.out / "project", HERE / "trainers", limits)
        self.raw = self.project.base / "raw" / f"Dataset{DATASET}_OpenMS"
        self.configuration = "3d_tiny" if args.tiny else "3d_fullres"
        self.fold = self.project.fold(self.raw.name, TRAINER, self.configuration)

    def left(self):
        return 60 * self.args.minutes - (time.time() - self.start)

    def file(self, part):
        return self.results / f"{part}.json"

    def has(self, part):
        return self.file(part).is_file()

    def run(self, part):
        """Run a part and save its result; an error ends the part, not the command."""
        print(f"\n=== {part} ({self.left():.0f} s left)", flush=True)
        start = time.time()
        try:
            found = getattr(self, part)()
        except (Exception, SystemExit):
            traceback.print_exc()
            return False
        write_json({**found, "took_s": round(time.time() - start)}, self.file(part))
        self.write_table()
        return True

    def environment(self):
        found = {name: version(name) for name in ("torch", "nnunetv2", "numpy", "scipy", "pandas")}
        found |= {"python": platform.python_version(), "cores": os.cpu_count(), "device": self.args.device}
        if self.args.device == "cuda":
            query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
            found["card"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
            found["cuda"] = torch.version.cuda
        return found

    def tests(self):
        log = self.out / "tests.log"
        # Other folders need extras that a GPU machine may lack.
        command = [sys.executable, "-m", "pytest", "tests/inference", "tests/trainers", "-q", "-k", "cuda"]
        command += ["-p", "no:cacheprovider"]
        if find_spec("xdist"):
            command += ["-n", str(max(os.cpu_count() // 4, 1))]
        with open(log, "w", encoding="utf-8") as output:
            status = subprocess.run(command, cwd=HERE.parent, stdout=output, stderr=subprocess.STDOUT).returncode
        summary = log.read_text(encoding="utf-8").strip().splitlines()[-1].strip("= ")
        if status:
            raise RuntimeError(f"Tests failed: {summary}; see {log}")
        return {"summary": summary}

    def cohort(self):
        """Simulate, plan and preprocess."""
        training, test = (6, 2) if self.args.tiny else self.args.patients
        processes = max(os.cpu_count() - 2, 1)
        if not (self.raw / "dataset.json").exists():
            command = [HERE / "open_ms_cohort.py", self.args.data, self.raw, "-np", processes]
            command += ["--training_cases", training, "--test_cases", test, "--overwrite"]
            run_script(command, self.project.environment)
        self.project.run(f"nnUNetv2_plan_and_preprocess -d {DATASET} -c 3d_fullres -npfp {processes} -np {processes}")
        if self.args.tiny:
            self.project.add_configuration(self.raw.name, self.configuration, small_configuration)
        self.project.run(f"nnUNetv2_conflunet_prepare -d {DATASET} -np {processes}")
        return {"training": training, "test": test}

    def speed(self):
        output = self.results / "speed_steps.json"
        command = [HERE / "acceptance" / "speed.py", output, "--dataset", DATASET]
        command += ["--configuration", self.configuration, "--device", self.args.device]
        command += ["--iterations", 3 if self.args.tiny else 60] + ["--compile"] * (self.args.device == "cuda")
        run_script(command, {**self.project.environment, "nnUNet_results": str(self.out / "speed_results")})
        return read_json(output)

    def training(self):
        """Train, predict the test patients, and make and evaluate their instances in four ways."""
        settings = self.out / "training_settings.json"
        if not settings.exists():
            write_json(self.training_settings(), settings)
        options = f"--npz -device {self.args.device}"
        self.project.train(self.fold, options, BENCHMARK_SETTINGS=json.dumps(read_json(settings)))
        prediction = self.out / "prediction"
        self.project.run(
            f"nnUNetv2_predict -d {DATASET} -c {self.configuration} -f 0 -tr {TRAINER} -i '{self.raw / 'imagesTs'}' "
            f"-o '{prediction}' -device {self.args.device} --disable_tta --continue_prediction --save_probabilities"
        )
        processes = max(os.cpu_count() // len(METHODS), 1)
        with ThreadPool(len(METHODS) if self.args.device == "cuda" else 1) as pool:
            pool.starmap(self.evaluate, [(prediction, name, processes) for name in METHODS])
        evaluations = {name: [self.out / "evaluation" / name] for name in METHODS}
        return {"settings": read_json(settings), "table": table_of_seeds(evaluations)}

    def training_settings(self):
        """As many epochs as the remaining time allows, given the measured seconds per step."""
        if self.args.tiny:
            n_iterations, epochs = 3, 2
        else:
            steps = read_json(self.file("speed"))
            step_s = steps.get("ours, compiled", steps["ours"])["iteration_s"]
            n_iterations = ITERATIONS_PER_EPOCH
            after = sum(seconds for part, seconds in SECONDS_AFTER_TRAINING.items() if part in self.args.parts)
            seconds = self.left() - SECONDS_BEFORE_TRAINING - after
            # Validation steps also load patches.
            an_epoch = step_s * (n_iterations + VALIDATION_ITERATIONS) + SECONDS_BETWEEN_EPOCHS
            epochs = max(int(seconds / an_epoch), 2)
        return {
            "seed": 0,
            "num_epochs": epochs,
            "num_iterations_per_epoch": n_iterations,
            "num_val_iterations_per_epoch": VALIDATION_ITERATIONS,
            "save_every": 2,
        }

    def evaluate(self, prediction, name, processes):
        instances = self.out / "instances" / name
        self.project.run(
            f'nnUNetv2_conflunet_instantiate -i "{prediction}" -o "{instances}" {METHODS[name]} -np {processes}'
        )
        self.project.run(
            f'nnUNetv2_conflunet_evaluate "{self.raw / "instancesTs"}" "{instances}" '
            f'-o "{self.out / "evaluation" / name}" -np {processes}'
        )

    def prediction(self):
        output = self.results / "prediction_runs.json"
        image = Path(self.args.data) / "flair" / "patient19.nii.gz"
        if self.args.tiny:
            image = next((self.raw / "imagesTs").glob("*.nii.gz"))
        command = [HERE / "acceptance" / "prediction.py", output, self.fold.parent, image]
        command += ["--images", self.raw / "imagesTs", "--configuration", self.configuration]
        command += ["--device", self.args.device, "--repeats", 1 if self.args.tiny else 2]
        run_script(command, self.project.environment)
        return read_json(output)

    def write_table(self):
        found = {part: read_json(self.file(part)) for part in PARTS if self.has(part)}
        text = acceptance_table(found)
        with atomic_path(self.out / "table.md") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        return text


def run_script(command, environment):
    subprocess.run([sys.executable, *map(str, command)], check=True, env=environment)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("data", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=9.0)
    text = "training and test patients of the cohort; with fewer, more time is left for what follows"
    parser.add_argument("--patients", type=int, nargs=2, default=(40, 24), metavar="N", help=text)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
