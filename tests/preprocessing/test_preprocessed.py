import json
import multiprocessing
import os
import shutil
import sys

import blosc2
import cc3d
import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from support import assert_whole_or_as_before, balls, dataset_json, small_plans, write_nifti

from nnunetv2_conflunet.commands import prepare
from nnunetv2_conflunet.preprocessing import instance_map, preprocessed
from nnunetv2_conflunet.preprocessing.configurations import preprocessed_configurations
from nnunetv2_conflunet.preprocessing.instance_map import UNKNOWN, InstanceCheck, save_map
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE = (20, 18, 22)
CASES = ("a", "b")


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Two cases, one empty; preprocessed by nnU-Net to another axis order, crop and spacing."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    raw = tmp_path / "raw" / "Dataset001_Small"
    for case in CASES:
        instances = balls(SHAPE, [(8, 8, 8), (8, 8, 13), (14, 12, 8)], 2.9) * (case == "a")
        image = np.zeros(SHAPE, np.float32)
        image[3:18, 2:17, 1:20] = 1 + instances[3:18, 2:17, 1:20]
        write_nifti(image, raw / "imagesTr" / f"{case}_0000.nii.gz", (1, 1, 2))
        write_nifti((instances > 0).astype(np.uint8), raw / "labelsTr" / f"{case}.nii.gz", (1, 1, 2))
        write_nifti((instances * 7).astype(np.uint16), raw / "instancesTr" / f"{case}.nii.gz", (1, 1, 2))
    (raw / "dataset.json").write_text(json.dumps(dataset_json()))
    plans = PlansManager(small_plans(spacing_mm=(1.0, 0.8, 1.6), transpose_forward=[2, 1, 0]))
    folder = tmp_path / "preprocessed" / "Dataset001_Small" / "nnUNetPlans_3d"
    folder.mkdir(parents=True)
    for case in CASES:
        DefaultPreprocessor(verbose=False).run_case_save(
            str(folder / case),
            [str(raw / "imagesTr" / f"{case}_0000.nii.gz")],
            str(raw / "labelsTr" / f"{case}.nii.gz"),
            plans,
            plans.get_configuration("3d_fullres"),
            dataset_json(),
        )
    return PreprocessedInstances(plans, "3d_fullres", dataset_json())


def load(dataset, case):
    _, segmentation, instances, _ = nnUNetDatasetBlosc2(
        str(dataset.source_folder), [case], str(dataset.folder)
    ).load_case(case)
    return segmentation[:][0], instances[:]


def test_maps_agree_with_the_preprocessed_segmentation_voxel_by_voxel(dataset):
    made = dataset.prepare(1)
    assert [(made_case.case, made_case.n_instances, made_case.n_lost) for made_case in made] == [
        ("a", 3, 0),
        ("b", 0, 0),
    ]
    for case in CASES:
        segmentation, instances = load(dataset, case)
        assert instances.dtype == np.int16
        np.testing.assert_array_equal(instances > 0, segmentation == 1)
    # The source's axis 0 is the preprocessed axis 2, at 2 / 1.6 of the resolution: the balls lie in order along it.
    _, instances = load(dataset, "a")
    centers = [np.argwhere(instances == i).mean(0) for i in (1, 2, 3)]
    assert centers[1][0] - centers[0][0] == pytest.approx(5, abs=0.7)
    assert centers[2][2] - centers[0][2] == pytest.approx(6 * 2 / 1.6, abs=0.7)


def test_nothing_is_done_twice(dataset):
    dataset.prepare(1)
    assert dataset.prepare(1) == []


def test_centers_of_mass_are_beside_the_maps(dataset):
    dataset.prepare(1)
    _, instances = load(dataset, "a")
    expected = [np.argwhere(instances == i).mean(axis=0) for i in (1, 2, 3)]
    table = np.load(dataset.folder / "centers" / "a.npy")
    assert table[:, 0].tolist() == [1, 2, 3]
    np.testing.assert_allclose(table[:, 1:], expected)
    assert np.load(dataset.folder / "centers" / "b.npy").shape == (0, 4)


def test_a_folder_without_centers_is_from_an_earlier_version_and_done_again(dataset):
    dataset.prepare(1)
    shutil.rmtree(dataset.folder / "centers")
    assert [made.case for made in dataset.prepare(1)] == ["a", "b"]
    assert dataset.prepare(1) == []
    (dataset.folder / "centers" / "a.npy").unlink()
    assert [made.case for made in dataset.prepare(1)] == ["a"]


def test_a_copied_dataset_is_not_stale(dataset):
    dataset.prepare(1)
    for path in dataset.source_folder.iterdir():
        os.utime(path)
    assert dataset.prepare(1) == []


def test_a_changed_source_is_done_again(dataset, tmp_path):
    dataset.prepare(1)
    source = tmp_path / "raw" / "Dataset001_Small" / "instancesTr" / "a.nii.gz"
    one = (balls(SHAPE, [(8, 8, 8), (8, 8, 13), (14, 12, 8)], 2.9) > 0).astype(np.uint8)
    write_nifti(one, source, (1, 1, 2))
    assert [(made.case, made.n_instances) for made in dataset.prepare(1)] == [("a", 1)]


def test_a_changed_preprocessed_case_is_done_again(dataset):
    dataset.prepare(1)
    segmentation, instances = load(dataset, "a")
    segmentation[segmentation == 1] = 0
    for i in (1, 2, 3):
        segmentation[tuple(np.argwhere(instances == i)[0])] = 1
    blosc2.asarray(segmentation[None], urlpath=str(dataset.source_folder / "a_seg.b2nd"), mode="w")
    assert [(made.case, made.n_instances, made.n_lost) for made in dataset.prepare(1)] == [("a", 3, 0)]
    assert np.count_nonzero(load(dataset, "a")[1]) == 3


def test_a_lesion_that_was_added_after_preprocessing_is_an_error(dataset):
    _, stored, _, _ = nnUNetDatasetBlosc2(str(dataset.source_folder), ["a"]).load_case("a")
    segmentation = stored[:][0]
    segmentation[cc3d.connected_components(segmentation == 1) == 1] = 0
    blosc2.asarray(segmentation[None], urlpath=str(dataset.source_folder / "a_seg.b2nd"), mode="w")
    with pytest.raises(InputError, match=r"a: instance .* is missing in the preprocessed"):
        dataset.prepare(1)


def test_a_lesion_outside_of_nnunets_crop_is_counted_as_lost(dataset, tmp_path):
    for folder in ("labelsTr", "instancesTr"):
        source = tmp_path / "raw" / "Dataset001_Small" / folder / "a.nii.gz"
        content = np.asarray(nibabel.load(source).dataobj).copy()
        # The image is 0 here.
        content[0, 0, 0] = 1
        write_nifti(content, source, (1, 1, 2))
    made, _ = dataset.prepare(1)
    assert (made.case, made.n_instances, made.n_lost) == ("a", 3, 1)


def test_a_missing_map_is_made_again(dataset):
    dataset.prepare(1)
    (dataset.folder / "b.b2nd").unlink()
    assert [made.case for made in dataset.prepare(1)] == ["b"]


def test_the_preprocessed_folder_itself_gains_no_file(dataset):
    before = sorted(file.name for file in dataset.source_folder.iterdir())
    dataset.prepare(1)
    assert sorted(file.name for file in dataset.source_folder.iterdir()) == before


def test_a_bad_case_stops_everything_before_a_file_is_written(dataset, tmp_path):
    write_nifti(
        np.zeros(SHAPE, np.uint8), tmp_path / "raw" / "Dataset001_Small" / "instancesTr" / "a.nii.gz", (1, 1, 2)
    )
    with pytest.raises(InputError, match=r"a: .* voxels"):
        dataset.prepare(1)
    assert not dataset.folder.exists()


@pytest.mark.parametrize("was_checked", [False, True])
def test_a_map_is_read_once_on_its_way(dataset, monkeypatch, was_checked):
    read, paths = instance_map.read_instances, []

    def counted(path, reader):
        paths.append(path.name)
        return read(path, reader)

    for module in (instance_map, preprocessed):
        monkeypatch.setattr(module, "read_instances", counted)
    check = InstanceCheck.of(dataset.plans.image_reader_writer_class, dataset.labels)
    dataset.prepare(1, checked=check if was_checked else None)
    assert paths == ["a.nii.gz", "b.nii.gz"]


def test_maps_of_good_cases_wait_for_those_that_cannot_be_resampled(dataset, tmp_path):
    for folder in ("labelsTr", "instancesTr"):
        source = tmp_path / "raw" / "Dataset001_Small" / folder / "b.nii.gz"
        # Label and map agree with each other, but no longer with the preprocessed segmentation.
        write_nifti(balls(SHAPE, [(9, 9, 9)], 6.0).astype(np.uint8), source, (1, 1, 2))
    with pytest.raises(InputError, match=r"(?s)1 of 2 cases cannot be used:.*b: .* run nnUNetv2_plan_and_preprocess"):
        dataset.prepare(1)
    assert [file.name for file in dataset.source_folder.parent.iterdir() if file.is_dir()] == ["nnUNetPlans_3d"]


def test_maps_that_were_checked_for_the_same_are_not_read_for_it_again(dataset, monkeypatch):
    def checked_again(*arguments):
        raise InputError("checked again")

    monkeypatch.setattr(InstanceCheck, "read", checked_again)
    reader = dataset.plans.image_reader_writer_class
    others = [
        None,
        InstanceCheck.of(NibabelIO, dataset.labels),
        InstanceCheck.of(reader, LabelManager({"background": 0, "a": 1, "b": 2}, None)),
    ]
    for other in others:
        with pytest.raises(InputError, match="checked again"):
            dataset.prepare(1, checked=other)
    assert len(dataset.prepare(1, checked=InstanceCheck.of(reader, dataset.labels))) == 2


def test_the_command_checks_the_maps_once(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    folder = dataset.source_folder.parent
    (folder / "nnUNetPlans.json").write_text(json.dumps(dataset.plans.plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json()))
    check, checked = InstanceCheck.check, []

    def counted(self, cases, *others):
        checked.extend(case.case for case in cases)
        return check(self, cases, *others)

    monkeypatch.setattr(InstanceCheck, "check", counted)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_prepare", "-d", "1", "-np", "1"])
    with pytest.raises(SystemExit) as status:
        prepare.main()
    assert status.value.code == 0
    assert checked == list(CASES) and "2 maps made" in capsys.readouterr().out


def test_no_instances_folder(dataset, tmp_path):
    shutil.rmtree(tmp_path / "raw" / "Dataset001_Small" / "instancesTr")
    with pytest.raises(InputError, match="--instances_from_labels"):
        dataset.prepare(1)


def test_a_missing_case(dataset, tmp_path):
    (tmp_path / "raw" / "Dataset001_Small" / "instancesTr" / "b.nii.gz").unlink()
    with pytest.raises(InputError, match=r"1 of 2 training cases have no instance map .*: b\."):
        dataset.prepare(1)


def test_without_the_raw_dataset_complete_maps_are_used_and_missing_ones_named(dataset, tmp_path):
    dataset.prepare(1)
    shutil.rmtree(tmp_path / "raw")
    assert dataset.prepare(1) == []
    (dataset.folder / "a.b2nd").unlink()
    with pytest.raises(InputError, match=r"1 of 2 cases have no complete map .*\(a\)"):
        dataset.prepare(1)


def test_a_configuration_that_is_not_preprocessed(dataset):
    shutil.rmtree(dataset.source_folder)
    with pytest.raises(InputError, match="Run nnUNetv2_plan_and_preprocess"):
        dataset.prepare(1)


def test_numpy_datasets(dataset):
    """Preprocessed cases of older nnU-Nets are .npz files."""
    for case in CASES:
        data, segmentation, _, properties = nnUNetDatasetBlosc2(str(dataset.source_folder), [case]).load_case(case)
        nnUNetDatasetNumpy.save_case(data[:], segmentation[:], properties, str(dataset.source_folder / case))
    for path in dataset.source_folder.glob("*.b2nd"):
        path.unlink()
    assert len(dataset.prepare(1)) == 2
    _, segmentation, instances, _ = nnUNetDatasetNumpy(
        str(dataset.source_folder), ["a"], str(dataset.folder)
    ).load_case("a")
    np.testing.assert_array_equal(instances > 0, segmentation[0] == 1)
    assert dataset.prepare(1) == []


def _prepare_at_once(dataset, barrier, results):
    barrier.wait()
    results.put(len(dataset.prepare(1)))


def test_five_processes_at_once(dataset):
    # A fork copies locks that another thread of this process may hold; the server of this context has one thread.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nnunetv2_conflunet.preprocessing.preprocessed"])
    barrier, results = context.Barrier(5), context.Queue()
    processes = [context.Process(target=_prepare_at_once, args=(dataset, barrier, results)) for _ in range(5)]
    for process in processes:
        process.start()
    made = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert made == [0, 0, 0, 0, 2]
    for case in CASES:
        segmentation, instances = load(dataset, case)
        np.testing.assert_array_equal(instances > 0, segmentation == 1)


def test_a_folder_that_may_only_be_read_can_be_trained_from(dataset, monkeypatch):
    dataset.prepare(1)
    monkeypatch.setattr("nnunetv2_conflunet.preprocessing.preprocessed.FileLock", None)
    assert dataset.prepare(1) == []


def test_a_folder_that_cannot_be_locked_is_named(dataset, monkeypatch):
    def refuse(self):
        raise PermissionError("denied")

    monkeypatch.setattr("nnunetv2_conflunet.preprocessing.preprocessed.FileLock.acquire", refuse)
    with pytest.raises(InputError, match=r"instances\.lock cannot be locked \(denied\)"):
        dataset.prepare(1)


@pytest.mark.parametrize("kind", [nnUNetDatasetBlosc2, nnUNetDatasetNumpy])
@pytest.mark.parametrize("room", [0, 4096])
def test_on_a_full_disk_the_old_map_stands(dataset, disk, room, kind):
    noise = np.random.default_rng(0).integers(0, 30_000, (20, 30, 40)).astype(np.int16)
    path = disk.folder / f"a{'.b2nd' if kind is nnUNetDatasetBlosc2 else '.npz'}"
    assert_whole_or_as_before(disk, lambda: save_map(noise, path, kind, dataset.configuration.patch_size), room)


def test_a_map_or_a_record_that_was_cut_off_is_made_again(dataset):
    dataset.prepare(1)
    for name in ("a.b2nd", "a.json"):
        for n in (0, 30):
            content = (dataset.folder / name).read_bytes()
            (dataset.folder / name).write_bytes(content[:n])
            assert [made.case for made in dataset.prepare(1)] == ["a"]
            assert (dataset.folder / name).stat().st_size == len(content)


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"made_from": 3}'])
def test_a_map_with_a_record_of_another_form_is_made_again(dataset, content):
    dataset.prepare(1)
    (dataset.folder / "a.json").write_text(content)
    assert [made.case for made in dataset.prepare(1)] == ["a"]


@pytest.mark.parametrize("name", ["a_seg.b2nd", "a.pkl"])
def test_a_file_that_is_gone_from_the_preprocessed_case_is_named(dataset, name):
    (dataset.source_folder / name).unlink()
    with pytest.raises(InputError, match=rf"nnUNetPlans_3d has no {name}, which nnU-Net .* Repeat nnUNetv2_preproc"):
        dataset.prepare(1)
    assert not dataset.folder.exists()


def test_instances_that_were_lost_are_counted_again_when_their_maps_are_current(dataset, tmp_path):
    dataset.prepare(1)
    assert dataset.counted("n_lost") == {}
    path = tmp_path / "raw" / "Dataset001_Small" / "instancesTr" / "a.nii.gz"
    image = nibabel.load(path)
    content = np.asarray(image.dataobj).copy()
    content[0, 0, 0] = 99
    nibabel.save(nibabel.Nifti1Image(content, image.affine, image.header), path)
    label = tmp_path / "raw" / "Dataset001_Small" / "labelsTr" / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image((content > 0).astype(np.uint8), image.affine), label)
    assert [made.n_lost for made in dataset.prepare(1)] == [1]
    assert dataset.prepare(1) == []
    assert dataset.counted("n_lost") == {"a": 1}


def test_a_case_that_is_gone_from_the_preprocessed_ones_counts_no_more(dataset):
    dataset.prepare(1)
    (dataset.folder / "b.json").write_text('{"n_lost": 5}')
    for file in dataset.source_folder.glob("b*"):
        file.unlink()
    assert dataset.counted("n_lost") == {}
    assert dataset.prepare(1) == []


def declare(tmp_path, unknown):
    """In the raw dataset only, as after an annotator's second look; its lesions have the ids 7, 14 and 21."""
    content = dataset_json() | {"instances": {"unknown": unknown}}
    (tmp_path / "raw" / "Dataset001_Small" / "dataset.json").write_text(json.dumps(content))


def again(dataset):
    """The dataset as another process sees it."""
    return PreprocessedInstances(dataset.plans, "3d_fullres", dataset_json())


def test_unknown_instances_are_lesion_without_being_counted(dataset, tmp_path):
    dataset.prepare(1)
    _, every_id = load(dataset, "a")
    declare(tmp_path, 14)
    made = again(dataset).prepare(1)
    n_unknown = np.count_nonzero(every_id == 2)
    assert [(case.case, case.n_instances, case.n_lost, case.n_unknown) for case in made] == [
        ("a", 2, 0, n_unknown),
        ("b", 0, 0, 0),
    ]
    _, instances = load(dataset, "a")
    np.testing.assert_array_equal(instances, np.choose(every_id, [0, 1, UNKNOWN, 2]))
    table = np.load(dataset.folder / "centers" / "a.npy")
    np.testing.assert_allclose(table, [[i, *np.argwhere(instances == i).mean(axis=0)] for i in (1, 2)])
    assert again(dataset).counted("n_lost") == {}
    assert again(dataset).counted("n_unknown") == {"a": n_unknown}


def test_the_command_says_what_is_unknown(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    declare(tmp_path, 14)
    folder = dataset.source_folder.parent
    (folder / "nnUNetPlans.json").write_text(json.dumps(dataset.plans.plans))
    shutil.copy(tmp_path / "raw" / "Dataset001_Small" / "dataset.json", folder)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_prepare", "-d", "1", "-np", "1"])
    with pytest.raises(SystemExit):
        prepare.main()
    n_voxels = np.count_nonzero(load(again(dataset), "a")[1] == UNKNOWN)
    said = f"{n_voxels} voxels in 1 cases are of unknown instances and only train the mask."
    assert n_voxels and said in capsys.readouterr().out


def test_a_changed_declaration_makes_maps_stale_and_none_leaves_no_trace(dataset, tmp_path):
    dataset.prepare(1)
    record = json.loads((dataset.folder / "a.json").read_text())
    assert set(record) == {"made_from", "n_instances", "n_lost"}
    assert set(record["made_from"]) == {"format", "instances", "segmentation"}
    declare(tmp_path, 999)
    assert [made.case for made in again(dataset).prepare(1)] == ["a", "b"]
    assert again(dataset).prepare(1) == []
    declare(tmp_path, 7)
    assert [made.case for made in again(dataset).prepare(1)] == ["a", "b"]
    (tmp_path / "raw" / "Dataset001_Small" / "dataset.json").write_text(json.dumps(dataset_json()))
    assert [made.case for made in again(dataset).prepare(1)] == ["a", "b"]
    assert json.loads((dataset.folder / "a.json").read_text()) == record


def test_only_unknown_instances_are_refused_before_a_map_is_written(dataset, tmp_path):
    source = tmp_path / "raw" / "Dataset001_Small" / "instancesTr" / "a.nii.gz"
    known = nibabel.load(source)
    content = np.asarray(known.dataobj)
    write_nifti(((content > 0) * 900).astype(np.uint16).T, source, (1, 1, 2))
    declare(tmp_path, 900)
    n_unknown = np.count_nonzero(load_labels(dataset, "a"))
    with pytest.raises(InputError, match=rf"unknown instance \({n_unknown} voxels in 1 of 2 cases\)"):
        dataset.prepare(1)
    assert not dataset.folder.exists()


def test_current_maps_without_a_known_lesion_are_refused_too(dataset, tmp_path):
    """As when the cases that had known lesions are no longer there."""
    declare(tmp_path, 900)
    dataset.prepare(1)
    record = json.loads((dataset.folder / "a.json").read_text())
    assert (record["n_instances"], record["n_unknown"]) == (3, 0)
    (dataset.folder / "a.json").write_text(json.dumps(record | {"n_instances": 0, "n_unknown": 5}))
    with pytest.raises(InputError, match=r"unknown instance \(5 voxels in 1 of 2 cases\)"):
        again(dataset).prepare(1)


def load_labels(dataset, case):
    return nnUNetDatasetBlosc2(str(dataset.source_folder), [case]).load_case(case)[1][:][0] == 1


def test_broken_plans_are_named(dataset):
    file = dataset.source_folder.with_name("nnUNetPlans.json")
    file.write_text("{")
    with pytest.raises(InputError, match=r"nnUNetPlans\.json is not valid JSON"):
        preprocessed_configurations(file.parent.name, "nnUNetPlans")


@pytest.mark.parametrize("content", ["{}", "[]", '{"dataset_name": "Dataset001_Small", "configurations": []}'])
def test_plans_of_another_form_are_named(dataset, monkeypatch, capsys, content):
    dataset.source_folder.with_name("nnUNetPlans.json").write_text(content)
    for options in ([], ["--paper_configuration"]):
        monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_prepare", "-d", "1", "-np", "1", *options])
        with pytest.raises(SystemExit):
            prepare.main()
        assert "nnUNetPlans.json is not a file of plans by nnU-Net: it has no " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda plans, content: plans["configurations"].update(mine={}), r"the configuration mine of .*KeyError"),
        (lambda plans, content: plans["configurations"].update(mine=3), r"the configuration mine of .*TypeError"),
        (
            lambda plans, content: plans["configurations"].update(mine={"inherits_from": "3d"}),
            r"the configuration mine of .*nnUNetPlans\.json, .*The configuration 3d does not exist",
        ),
        (lambda plans, content: plans["configurations"]["3d_fullres"].pop("spacing"), r"3d_fullres of .*'spacing'"),
        (lambda plans, content: content.pop("labels"), r"3d_fullres of .* dataset\.json beside it .*'labels'"),
        (lambda plans, content: content.clear(), r"dataset\.json has no 'file_ending'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
def test_a_configuration_that_nnunet_cannot_use_is_named(dataset, edit, message):
    file, plans, content = dataset.source_folder.with_name("nnUNetPlans.json"), dataset.plans.plans, dataset_json()
    edit(plans, content)
    file.write_text(json.dumps(plans))
    file.with_name("dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        preprocessed_configurations(file.parent.name, "nnUNetPlans")


def test_configurations_are_looked_up_once(dataset, monkeypatch):
    calls = []
    monkeypatch.setattr(prepare, "preprocessed_configurations", lambda *args: calls.append(args) or ([dataset], []))
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_prepare", "-d", "1", "-np", "1"])
    with pytest.raises(SystemExit, match="0"):
        prepare.main()
    assert len(calls) == 1 and load(dataset, "a")[1].max() == 3


def test_a_configuration_that_does_not_exist_is_named_before_the_maps_are_read(dataset, monkeypatch, capsys):
    file = dataset.source_folder.with_name("nnUNetPlans.json")
    file.write_text(json.dumps(dataset.plans.plans))
    file.with_name("dataset.json").write_text(json.dumps(dataset_json()))
    monkeypatch.setattr(instance_map, "read_instances", None)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_prepare", "-d", "1", "-np", "1", "-c", "3d_lowres"])
    with pytest.raises(SystemExit):
        prepare.main()
    assert "nnUNetPlans has no configuration 3d_lowres" in capsys.readouterr().err
