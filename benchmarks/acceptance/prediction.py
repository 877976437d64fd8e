"""Prediction of one volume by nnU-Net's predictor and by ours, with the same weights: seconds and peak memory.

    python benchmarks/acceptance/prediction.py RESULT.json MODEL_FOLDER IMAGE --images FOLDER --device cuda

Part of `benchmarks/gpu_acceptance.py`. MODEL_FOLDER is a model of a ConfLUNet trainer; nnU-Net's network gets its
weights without the heads' channels. Mirroring is on. `on device` and `on CPU` say where nnU-Net gathers its results; in
the last row it starts on the device, whose memory is limited to less than they need. `command` is the time of
`nnUNetv2_predict_from_modelfolder` for all images of FOLDER.
"""

import argparse
import contextlib
import gc
import io
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_conflunet.inference import ConfLUNetPredictor
from nnunetv2_conflunet.nnunet_plugin.project import command_path
from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.utilities.files import read_json, write_json

KINDS = {"stock": (nnUNetTrainer, nnUNetPredictor), "ours": (nnUNetTrainerConfLUNet, ConfLUNetPredictor)}
MIRROR_AXES = (0, 1, 2)
GIB = 2**30
# Voxels along each axis of an image whose results take more memory than the network does for a patch.
WIDE = 320


def main():
    args = parse()
    torch.backends.cudnn.benchmark = True
    model = Model(args.model, args.configuration, args.fold)
    result = {}
    places = {"on device": True, "on CPU": False} if args.device == "cuda" else {"on CPU": False}
    for place, on_device in places.items():
        predictors = {kind: model.predictor(kind, args.device, on_device) for kind in KINDS}
        data = preprocessed(predictors["stock"], args.image)
        for repeat in range(1 + args.repeats):
            # The first repeat is a warm-up, in which cuDNN tries its algorithms.
            for kind, predictor in predictors.items():
                figures, _ = measured(predictor, data)
                if repeat:
                    keep_lowest(result.setdefault(f"{kind}, {place}", figures), figures)
                write_json(result, args.result)
        for kind, predictor in predictors.items():
            result[f"{kind}, {place}"]["with_files_s"] = to_files(predictor, args.image, args.result.parent / kind)
            write_json(result, args.result)
    result["command"] = {"images": len(list(args.images.glob("*_0000.*")))}
    for kind in KINDS:
        folder = model.saved_as(kind, args.result.parent / "models")
        result["command"][kind] = predict_folder(folder, args, args.result.parent / kind)
        write_json(result, args.result)
    if args.device == "cuda":
        result["ours, out of memory"] = out_of_memory(model, data)
        write_json(result, args.result)


class Model:
    """A trained model, whose weights both predictors use."""

    def __init__(self, folder, configuration, fold):
        self.plans = PlansManager(read_json(folder / "plans.json"))
        self.configuration = self.plans.get_configuration(configuration)
        self.dataset_json = read_json(folder / "dataset.json")
        self.channels = len(self.dataset_json["channel_names"])
        self.n_semantic = self.plans.get_label_manager(self.dataset_json).num_segmentation_heads
        self.fold = f"fold_{fold}"
        self.checkpoint = torch.load(
            folder / self.fold / "checkpoint_final.pth", map_location="cpu", weights_only=False
        )

    def network(self, kind):
        """The network of a kind, and its weights."""
        trainer_class, _ = KINDS[kind]
        network = trainer_class.build_network_architecture(
            self.plans, self.configuration, self.channels, self.n_semantic, False
        )
        wanted = network.state_dict()
        # Semantic channels come first, and nnU-Net's network has no others.
        trained = self.checkpoint["network_weights"]
        return network, {name: value[: len(wanted[name])] if value.ndim else value for name, value in trained.items()}

    def saved_as(self, kind, folder):
        """A model folder of a kind, made once."""
        folder = folder / kind
        if not folder.exists():
            (folder / self.fold).mkdir(parents=True)
            write_json(self.plans.plans, folder / "plans.json")
            write_json(self.dataset_json, folder / "dataset.json")
            trainer_class, _ = KINDS[kind]
            changed = {"network_weights": self.network(kind)[1], "trainer_name": trainer_class.__name__}
            changed["inference_allowed_mirroring_axes"] = MIRROR_AXES
            torch.save({**self.checkpoint, **changed}, folder / self.fold / "checkpoint_final.pth")
        return folder

    def predictor(self, kind, device, on_device):
        trainer_class, predictor_class = KINDS[kind]
        network, weights = self.network(kind)
        made = predictor_class(
            device=torch.device(device), perform_everything_on_device=on_device, use_mirroring=True, allow_tqdm=False
        )
        made.manual_initialization(
            network, self.plans, self.configuration, [weights], self.dataset_json, trainer_class.__name__, MIRROR_AXES
        )
        return made


def preprocessed(predictor, image):
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    data, *_ = preprocessor.run_case(
        [str(image)], None, predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    )
    return torch.from_numpy(np.ascontiguousarray(data)).float()


def measured(predictor, data):
    """Seconds and peak memory of the sliding window, and its output."""
    gc.collect()
    # 5 resets the peak of the process (man 5 proc, clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before = host_gib("VmRSS")
    cuda = predictor.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    output = predictor.predict_logits_from_preprocessed_data(data)
    figures = {"seconds": time.perf_counter() - start, "host_gib": host_gib("VmHWM") - before}
    # Leave the device to the next measurement.
    predictor.network.cpu()
    if cuda:
        figures |= {
            "device_gib": torch.cuda.max_memory_allocated() / GIB,
            "reserved_gib": torch.cuda.max_memory_reserved() / GIB,
        }
    return figures, output


def keep_lowest(kept, figures):
    kept.update({name: min(value, figures[name]) for name, value in kept.items() if name in figures})


def host_gib(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 2**20


def to_files(predictor, image, folder):
    """Seconds from the image file to all files of the prediction."""
    folder.mkdir(exist_ok=True)
    start = time.perf_counter()
    predictor.predict_from_files_sequential([[str(image)]], [str(folder / "case")])
    return time.perf_counter() - start


def predict_folder(model, args, folder):
    """Seconds of nnU-Net's command for a folder of images, its start included."""
    program = command_path("nnUNetv2_predict_from_modelfolder")
    options = ["-i", args.images, "-o", folder, "-m", model, "-f", args.fold, "-device", args.device]
    start = time.perf_counter()
    subprocess.run([program, *map(str, options)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def out_of_memory(model, data):
    """Results that do not fit on the device: nnU-Net gathers them on the CPU, where ours must be the same."""
    wide = torch.zeros((len(data), *[WIDE] * (data.ndim - 1)))
    wide[tuple(slice(n) for n in data.shape)] = data
    fits, expected = measured(few_tiles(model.predictor("ours", "cuda", True)), wide)
    spares, _ = measured(few_tiles(model.predictor("ours", "cuda", False)), wide)
    limit = (fits["reserved_gib"] + spares["reserved_gib"]) / 2
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit * GIB / torch.cuda.get_device_properties(0).total_memory)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        figures, output = measured(few_tiles(model.predictor("ours", "cuda", True)), wide)
    torch.cuda.set_per_process_memory_fraction(1.0)
    return figures | {
        "limit_gib": limit,
        "needs_gib": fits["reserved_gib"],
        "fell_back": "Moving results arrays to CPU" in printed.getvalue(),
        "largest_difference": float((output.float() - expected.float()).abs().max()),
        "largest_value": float(expected.float().abs().max()),
    }


def few_tiles(predictor):
    predictor.tile_step_size, predictor.use_mirroring = 1, False
    return predictor


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="predicted by nnU-Net's command")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest counts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
