"""Lesions with their surroundings, cut out of preprocessed cases."""

import os
import statistics

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from support import preprocessed_dataset, set_nnunet_environment, small_plans

from nnunetv2_conflunet.commands import prepare
from nnunetv2_conflunet.preprocessing.lesion_crops import (
    LESION,
    NEITHER,
    SURROUNDINGS,
    CaseCrops,
    crops_file,
    crops_of_case,
    prepare_lesion_crops,
)
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE = (16, 18, 20)


def case_with(*lesions, shape=SHAPE):
    """Image (two channels), labels and instances with lesions (id, place)."""
    instances = np.zeros(shape, np.int16)
    for lesion, place in lesions:
        instances[place] = lesion
    image = np.stack([np.where(instances > 0, 9.0, 2.0), np.where(instances > 0, 1.0, 3.0)])
    return image, (instances > 0).astype(np.int16), instances


def cut(case, ids=None, spacing_mm=(1.0, 1.0, 1.0)):
    image, labels, instances = case
    ids = np.unique(instances[instances > 0]) if ids is None else np.array(ids, int)
    return list(crops_of_case(image, labels, instances, ids, spacing_mm))


def test_the_weight_falls_with_the_distance_in_mm():
    (crop,) = cut(case_with((4, np.s_[8, 8, 9])), spacing_mm=(3.0, 1.0, 1.0))
    # 4 mm are two voxels of 3 mm, and four of 1 mm.
    assert crop.weight.shape == (5, 9, 9)
    assert crop.image.shape == (2, 5, 9, 9)
    assert crop.weight[2, 4, 4] == LESION
    # At 1 and sqrt(2) mm half of, and 0.29 of the way remain to the end of the seam at 2 mm.
    np.testing.assert_allclose(crop.weight[2, 4, 3:7], [0.5, 1, 0.5, 0])
    np.testing.assert_allclose(crop.weight[2, 5, 5], 1 - np.sqrt(2) / 2, rtol=1e-6)
    assert crop.weight[1, 4, 4] == SURROUNDINGS
    assert (crop.weight == LESION).sum() == 1


def test_other_lesions_and_the_outside_of_the_image_are_neither():
    image, labels, instances = case_with((1, np.s_[6:9, 6:9, 6:9]), (2, np.s_[6:9, 6:9, 11]))
    labels[:, 3] = -1
    labels[3, 12] = 2
    first, _ = cut((image, labels, instances))
    assert (first.weight[4:7, 4:7, 9] == NEITHER).all()
    assert (first.weight[:, 1] == NEITHER).all()
    assert (first.weight[1, 10] == NEITHER).all()
    assert first.weight[0, 0, 0] == SURROUNDINGS


def test_the_crop_ends_at_the_border_of_the_image():
    (crop,) = cut(case_with((1, np.s_[1:3, 8:10, 8:10])))
    assert crop.weight.shape == (1 + 2 + 4, 10, 10)


@pytest.mark.parametrize(
    "other", [np.s_[9, 8:10, 8:10], np.s_[9, 10, 10], np.s_[9, 7, 8]], ids=["face", "corner", "edge"]
)
def test_a_lesion_that_touches_another_is_left_out(other):
    assert cut(case_with((1, np.s_[6:9, 8:10, 8:10]), (2, other))) == []


def test_a_lesion_at_the_border_of_the_image_is_left_out():
    assert cut(case_with((1, np.s_[0:3, 8:10, 8:10]))) == []
    assert cut(case_with((1, np.s_[5:8, 8:10, 17:20]))) == []


def test_each_voxel_of_a_lesion_keeps_its_label():
    image, labels, instances = case_with((1, np.s_[6:9, 6:9, 6:9]), (2, np.s_[6:9, 6:9, 11]))
    labels[7, 7, 7], labels[instances == 2] = 2, 3
    first, second = cut((image, labels, instances))
    assert first.labels[:, :, :7].tolist() == labels[2:13, 2:13, 2:9].tolist() and not first.labels[:, :, 7:].any()
    assert np.unique(second.labels).tolist() == [0, 3]


def test_lesions_without_an_id_among_the_known_are_left_out():
    case = case_with((1, np.s_[6:8, 4:6, 4:6]), (32767, np.s_[6:8, 12:14, 12:14]))
    assert len(cut(case, ids=[1])) == 1
    assert cut(case, ids=[]) == []


def test_a_lesion_without_surroundings_is_left_out():
    image, labels, instances = case_with((1, np.s_[6:8, 6:8, 6:8]))
    labels[instances == 0] = -1
    assert cut((image, labels, instances)) == []


def test_in_two_dimensions_distances_are_within_the_slice():
    case = case_with((1, np.s_[0:2, 8, 8]), (2, np.s_[5, 4, 4]))
    crops = cut(case, spacing_mm=(1.0, 1.0))
    # The first lesion touches the border only along the axis that the network does not have.
    assert [crop.weight.shape for crop in crops] == [(2, 9, 9), (1, 9, 9)]
    np.testing.assert_allclose(crops[0].weight[1, 4, 3:7], [0.5, 1, 0.5, 0])


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    plans = small_plans()
    content = preprocessed_dataset(tmp_path, plans, apart=8)
    set_nnunet_environment(monkeypatch, tmp_path)
    dataset = PreprocessedInstances(PlansManager(plans), "3d_fullres", content)
    dataset.prepare(1)
    return dataset


def cases_of(prepared):
    return sorted(path.stem for path in prepared.folder.glob("*.json"))


def test_files_are_written_once(prepared):
    cases = cases_of(prepared)
    assert prepare_lesion_crops(prepared, 1) == cases
    assert prepare_lesion_crops(prepared, 1) == []


def test_a_file_has_what_was_cut_out(prepared):
    prepare_lesion_crops(prepared, 1)
    case = cases_of(prepared)[0]
    image, labels, instances = prepared.load(case)
    ids = np.unique(instances[instances > 0])
    expected = list(crops_of_case(image, labels, instances, ids, (1.0, 1.0, 1.0)))
    file = CaseCrops(crops_file(prepared.folder, case))
    assert len(expected) == len(file.size) > 0
    assert file.n_lesions == len(ids)
    for number, crop in enumerate(expected):
        read = file.read(number)
        np.testing.assert_array_equal(read.image, crop.image)
        np.testing.assert_array_equal(read.weight, crop.weight)
        np.testing.assert_array_equal(read.labels, crop.labels)
        inside = np.argwhere(instances == ids[number])
        assert file.size[number].tolist() == (inside.max(axis=0) - inside.min(axis=0) + 1).tolist()
        values = zip(crop.image[0].flat, crop.weight.flat, strict=True)
        around = [float(value) for value, weight in values if weight == 0]
        np.testing.assert_allclose(file.level[number, 0], statistics.mean(around), rtol=1e-5)
        np.testing.assert_allclose(file.spread[number, 0], statistics.pstdev(around), rtol=1e-4)


@pytest.mark.parametrize("what", ["map", "image", "truncated", "missing"])
def test_a_stale_file_is_written_again(prepared, what):
    prepare_lesion_crops(prepared, 1)
    case, *_ = cases_of(prepared)
    file = crops_file(prepared.folder, case)
    if what == "map":
        record = prepared.folder / f"{case}.json"
        record.write_text(record.read_text().replace('"instances": "', '"instances": "0'))
    elif what == "image":
        with open(prepared.source_folder / f"{case}.b2nd", "ab") as image:
            image.write(b"0")
    elif what == "truncated":
        file.write_bytes(file.read_bytes()[:-30])
    else:
        file.unlink()
    assert prepare_lesion_crops(prepared, 1) == [case]


def test_maps_without_records_have_their_lesions_cut_out_as_well(prepared):
    for record in prepared.folder.glob("*.json"):
        record.unlink()
    assert len(prepare_lesion_crops(prepared, 1)) == 4
    assert prepare_lesion_crops(prepared, 1) == []


@pytest.mark.parametrize("cut_out_before", [False, True])
def test_maps_without_their_centers_are_refused_with_the_remedy(prepared, cut_out_before):
    if cut_out_before:
        prepare_lesion_crops(prepared, 1)
    case, *_ = cases_of(prepared)
    (prepared.folder / "centers" / f"{case}.npy").unlink()
    with pytest.raises(InputError, match=rf"1 of 4 cases have no file in .*centers \({case}\), .* nnUNet_raw\."):
        prepare_lesion_crops(prepared, 1)


def test_a_read_only_folder_is_refused_with_the_remedy(prepared, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"run nnUNetv2_conflunet_prepare\. With --lesion_crops"):
        prepare_lesion_crops(prepared, 1)


def test_the_command_cuts_lesions_out_if_asked(prepared, monkeypatch, capsys):
    for option, n_files in (((), 0), (("--lesion_crops",), 4)):
        monkeypatch.setattr("sys.argv", ["nnUNetv2_conflunet_prepare", "-d", "1", "-np", "1", *option])
        with pytest.raises(SystemExit) as ended:
            prepare.main()
        assert ended.value.code == 0
        assert len(list((prepared.folder / "lesions").glob("*.npz"))) == n_files
    assert "Lesions of 4 cases cut out to be pasted" in capsys.readouterr().out
