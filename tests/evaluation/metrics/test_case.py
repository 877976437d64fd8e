"""Cases made by hand, with values that follow from their geometry."""

import subprocess
import sys

import numpy as np
import pytest
from support import line

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.evaluation.metrics.case import assess
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings
from nnunetv2_conflunet.utilities.errors import InputError

NAN = pytest.approx(np.nan, nan_ok=True)
CLU_RATIOS = ("Recall_CLU", "Precision_CLU", "F1_CLU", "DSC_TP_CLU", "SQ_CLU", "PQ_CLU")


def test_a_pair_of_shifted_rods_has_the_overlap_of_the_shift():
    # 10 and 10 voxels that share 7: IoU 7 / 13, Dice 14 / 20.
    found = evaluate_case(line((4, 3, 13)), line((9, 0, 10)), (2.0, 0.5))
    assert found["SQ"] == found["PQ"] == 7 / 13
    assert found["DSC_TP"] == found["DSC"] == 0.7
    assert found["FP_volume_mm3"] == found["FN_volume_mm3"] == 3.0
    assert found["load_reference_mm3"] == 10.0
    assert found["Precision"] == found["Recall"] == found["F1"] == found["RQ"] == 1


def test_normalized_dice_scales_false_positives_to_a_load_of_one_in_a_thousand():
    # 10 of 60 voxels are lesion: the scale is 0.999 * 10 / (0.001 * 50) = 199.8.
    found = evaluate_case(line((1, 3, 13)), line((1, 0, 10)), (1, 1))
    assert found["nDSC"] == pytest.approx(14 / (14 + 199.8 * 3 + 3), rel=1e-12)


@pytest.mark.parametrize("rule", ["paper", "isbi2024", "greedy", "hungarian"])
@pytest.mark.parametrize(("stop", "expected"), [(10, 0), (9, 1)])
def test_an_iou_of_exactly_the_threshold_does_not_match(rule, stop, expected):
    # One voxel shared of a union of 10 is 0.1; of a union of 9 it is more.
    found = evaluate_case(line((1, 0, 1)), line((1, 0, stop)), (1, 1), matching=rule)
    assert found["TP"] == expected


def test_a_reference_claimed_twice_keeps_the_better_prediction():
    # IoU 6 / 10 and 4 / 10 with the same reference.
    prediction, reference = line((1, 0, 4), (2, 4, 10)), line((5, 0, 10))
    one = evaluate_case(prediction, reference, (1, 1))
    assert (one["TP"], one["FP"], one["FN"], one["SQ"]) == (1, 1, 0, 0.6)
    many = evaluate_case(prediction, reference, (1, 1), matching="isbi2024")
    assert (many["TP"], many["FP"], many["FN"], many["SQ"]) == (2, 0, 0, 0.5)
    assert many["Recall"] == many["Precision"] == 1


def test_the_loser_of_a_reference_gets_no_second_choice_but_does_so_under_greedy_and_hungarian():
    # IoU of prediction 1 with references 1 and 2: 5 / 16 and 2 / 10; of prediction 2 with reference 1: 6 / 11.
    prediction, reference = line((1, 0, 10), (2, 10, 16)), line((1, 5, 16), (2, 1, 3))
    paper = evaluate_case(prediction, reference, (1, 1))
    assert (paper["TP"], paper["FP"], paper["FN"], paper["SQ"]) == (1, 1, 1, 6 / 11)
    for rule in ("greedy", "hungarian"):
        other = evaluate_case(prediction, reference, (1, 1), matching=rule)
        assert (other["TP"], other["SQ"]) == (2, (6 / 11 + 0.2) / 2)


def test_hungarian_prefers_the_greater_sum_to_the_greatest_pair():
    # IoU of prediction 1 with references 1 and 2: 8 / 18 and 6 / 14; of prediction 2 with reference 1: 4 / 12.
    prediction, reference = line((1, 0, 14), (2, 14, 18)), line((2, 0, 6), (1, 6, 18))
    greedy = evaluate_case(prediction, reference, (1, 1), matching="greedy")
    assert (greedy["TP"], greedy["SQ"]) == (1, 8 / 18)
    hungarian = evaluate_case(prediction, reference, (1, 1), matching="hungarian")
    assert (hungarian["TP"], hungarian["SQ"]) == (2, pytest.approx((6 / 14 + 4 / 12) / 2, abs=1e-15))


def test_ties_go_to_the_lowest_id():
    # The prediction covers two references of equal size; two predictions cover one reference.
    reference = line((7, 0, 5), (3, 5, 10))
    found = evaluate_case(line((1, 0, 10)), reference, (1, 1))
    assert (found["TP"], found["FN"], found["SQ"]) == (1, 1, 0.5)
    case = assess(Foreground.of(line((1, 0, 10)), reference), (1, 1), CaseSettings())
    assert case.table.reference_ids[case.matches.reference] == [3]
    case = assess(Foreground.of(reference, line((1, 0, 10))), (1, 1), CaseSettings())
    assert case.table.prediction_ids[case.matches.prediction] == [3]


class TestEmpty:
    lesion = line((1, 0, 10), (2, 10, 15))
    empty = line()

    def test_both(self):
        found = evaluate_case(self.empty, self.empty, (1, 1))
        counts = {k: v for k, v in found.items() if isinstance(v, int)}
        assert set(counts.values()) == {0} and {"TP", "FP", "FN", "DiC", "n_CLU", "TP_CLU"} <= set(counts)
        for name in ("Precision", "Recall", "F1", "PQ", "SQ", "RQ", "DSC", "nDSC", "DSC_TP", *CLU_RATIOS):
            assert np.isnan(found[name]), name

    def test_prediction(self):
        found = evaluate_case(self.empty, self.lesion, (1, 1))
        assert [found[metric] for metric in ("Precision", "Recall", "F1", "PQ", "RQ", "DSC", "nDSC")] == [0] * 7
        assert np.isnan(found["SQ"]) and np.isnan(found["DSC_TP"])
        names = ("n_CLU", "Recall_CLU", "Precision_CLU", "F1_CLU", "PQ_CLU")
        assert [found[name] for name in names] == [2, 0, 0, 0, 0]
        assert np.isnan(found["DSC_TP_CLU"]) and np.isnan(found["SQ_CLU"])
        assert (found["FN"], found["DiC"], found["count_difference"]) == (2, 2, -2)

    def test_reference(self):
        found = evaluate_case(self.lesion, self.empty, (1, 1))
        assert [found[metric] for metric in ("Precision", "F1", "PQ", "RQ", "DSC", "nDSC")] == [0] * 6
        assert all(np.isnan(found[metric]) for metric in ("Recall", "SQ", "DSC_TP", *CLU_RATIOS))
        assert (found["FP"], found["DiC"], found["count_difference"]) == (2, 2, 2)

    def test_no_match(self):
        found = evaluate_case(line((1, 20, 30)), self.lesion, (1, 1))
        assert [found[metric] for metric in ("Precision", "Recall", "F1", "PQ")] == [0] * 4
        assert np.isnan(found["SQ"]) and np.isnan(found["DSC_TP"])

    def test_no_confluent_lesion(self):
        isolated = line((1, 0, 10), (2, 20, 30))
        found = evaluate_case(isolated, isolated, (1, 1))
        assert found["n_CLU"] == found["TP_CLU"] == 0
        assert all(np.isnan(found[metric]) for metric in CLU_RATIOS)

    def test_worst_makes_undefined_ratios_zero(self):
        found = evaluate_case(self.empty, self.empty, (1, 1), undefined="worst")
        assert not any(np.isnan(value) for value in found.values())
        assert found["DSC"] == found["Recall_CLU"] == 0

    def test_authors_give_a_dice_of_one_for_two_empty_maps(self):
        found = evaluate_case(self.empty, self.empty, (1, 1), undefined="authors")
        assert found["DSC"] == found["nDSC"] == 1
        assert [found[metric] for metric in ("Precision", "Recall", "F1", "PQ", "DSC_TP")] == [0] * 5
        assert all(np.isnan(found[metric]) for metric in CLU_RATIOS)
        assert evaluate_case(self.empty, self.lesion, (1, 1), undefined="authors")["DSC_TP_CLU"] == 0


class TestConfluence:
    touching = line((1, 0, 10), (2, 10, 15), (3, 20, 30))

    def test_a_perfect_prediction_is_perfect(self):
        found = evaluate_case(self.touching + 4 * (self.touching > 0), self.touching, (1, 1))
        assert found["n_CLU"] == found["TP_CLU"] == 2
        assert [found[metric] for metric in CLU_RATIOS] == [1] * 6

    def test_a_merging_prediction_misses_one_unit(self):
        # 15 predicted voxels on 10 + 5: IoU 10 / 15, Dice 20 / 25; the second unit is missed.
        found = evaluate_case(line((1, 0, 15), (2, 20, 30)), self.touching, (1, 1))
        assert (found["TP_CLU"], found["FP_CLU"], found["FN_CLU"]) == (1, 0, 1)
        assert (found["Recall_CLU"], found["Precision_CLU"], found["F1_CLU"]) == (0.5, 1, 2 / 3)
        assert found["DSC_TP_CLU"] == 0.8 and found["PQ_CLU"] == pytest.approx(10 / 15 * 2 / 3, rel=1e-15)
        assert (found["n_merging_predictions"], found["n_merged_references"]) == (1, 2)

    def test_a_splitting_prediction_is_a_false_positive_of_the_unit_it_overlaps(self):
        found = evaluate_case(line((1, 0, 6), (2, 6, 10), (3, 10, 15), (4, 20, 30), (5, 40, 50)), self.touching, (1, 1))
        assert (found["TP_CLU"], found["FP_CLU"], found["FN_CLU"]) == (2, 1, 0)
        assert found["Precision_CLU"] == 2 / 3 and found["Precision"] == 3 / 5
        assert (found["n_split_references"], found["n_splitting_predictions"]) == (1, 2)

    @pytest.mark.parametrize(("connectivity", "n_clu"), [(6, 0), (18, 2), (26, 2)])
    def test_an_edge_contact_in_the_plane(self, connectivity, n_clu):
        plane = np.zeros((6, 6), np.uint8)
        plane[0:2, 0:2], plane[2:4, 2:4] = 1, 2
        assert evaluate_case(plane, plane, (1, 1), connectivity=connectivity)["n_CLU"] == n_clu

    @pytest.mark.parametrize(("connectivity", "n_clu"), [(6, 0), (18, 0), (26, 2)])
    def test_a_corner_contact_in_space(self, connectivity, n_clu):
        space = np.zeros((6, 6, 6), np.uint8)
        space[0:2, 0:2, 0:2], space[2:4, 2:4, 2:4] = 1, 2
        assert evaluate_case(space, space, (1, 1, 1), connectivity=connectivity)["n_CLU"] == n_clu

    def test_an_instance_in_two_pieces_is_confluent_by_equation_3_only(self):
        pieces = line((1, 0, 5), (1, 10, 15))
        assert evaluate_case(pieces, pieces, (1, 1))["n_CLU"] == 0
        assert evaluate_case(pieces, pieces, (1, 1), clu="eq3")["n_CLU"] == 1

    def test_a_second_piece_can_be_the_one_that_touches(self):
        pieces = line((1, 0, 5), (1, 10, 15), (2, 15, 20))
        assert evaluate_case(pieces, pieces, (1, 1))["n_CLU"] == 2


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 9), (9, 9, 9), (1, 9)])
def test_a_lattice_of_isolated_voxels_has_no_confluent_lesion(shape):
    lattice = np.zeros(shape, np.int32)
    points = lattice[tuple(slice(None, None, 2) for _ in shape)]
    points[:] = np.arange(1, points.size + 1).reshape(points.shape)
    found = evaluate_case(lattice, lattice, (1,) * len(shape))
    assert (found["n_reference"], found["n_CLU"]) == (points.size, 0)


@pytest.mark.parametrize(
    "dtype",
    [bool, np.uint8, np.int16, np.uint16, np.uint32, np.int64, np.uint64, np.float16, np.float32, np.float64, ">i2"],
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.filterwarnings("error")
def test_dtype_and_memory_order_do_not_matter(dtype, order):
    reference = np.zeros((5, 6, 7), np.int64)
    reference[1:3, 1:4, 1:5] = 1
    prediction = np.roll(reference, 1, axis=2)
    expected = evaluate_case(prediction, reference, (1, 2, 3))
    converted = [np.array(instances, dtype=dtype, order=order) for instances in (prediction, reference)]
    assert evaluate_case(*converted, (1, 2, 3)) == expected
    # A strided view of a larger array.
    assert evaluate_case(np.repeat(converted[0], 2, axis=1)[:, ::2], converted[1], (1, 2, 3)) == expected


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_foreground_is_in_c_order_whatever_the_memory_is(random_pair, ndim):
    for seed in range(20):
        maps = random_pair(np.random.default_rng(seed), ndim)
        expected = Foreground.of(*maps)
        assert (expected.coordinates == np.argwhere((maps[0] != 0) | (maps[1] != 0))).all()
        for found in (
            Foreground.of(*map(np.asfortranarray, maps)),
            Foreground.of(maps[0], np.asfortranarray(maps[1])),
        ):
            for name in ("coordinates", "prediction", "reference"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_large_and_sparse_ids_do_not_wrap():
    reference = line((65_536, 0, 10), (70_000, 20, 30), (2**31 - 1, 40, 50))
    prediction = line((256, 0, 10), (512, 20, 30), (65_792, 40, 50))
    found = evaluate_case(prediction, reference, (1, 1))
    assert (found["TP"], found["SQ"], found["n_reference"]) == (3, 1.0, 3)


def test_many_slabs_are_one_map():
    # More voxels than are handled at a time, with lesions across the borders of the slabs.
    reference = np.zeros((40, 200, 200), np.uint16)
    reference[2:38, 10:13, 10:13] = 1
    prediction = reference.copy()
    prediction[30:38] = 0
    found = evaluate_case(prediction, reference, (1, 1, 1))
    assert found["SQ"] == 28 / 36 and found["load_reference_mm3"] == 36 * 9


@pytest.mark.parametrize(
    ("prediction", "reference", "options", "message"),
    [
        (np.zeros((3, 3)), np.zeros((3, 4)), {}, r"shape \(3, 3\) and the reference \(3, 4\)"),
        (np.zeros(3), np.zeros(3), {}, "two or three axes"),
        (np.full((3, 3), 0.5), np.zeros((3, 3)), {}, "prediction holds fractional"),
        (np.zeros((3, 3)), np.full((3, 3), np.nan), {}, "reference holds NaN"),
        (np.full((3, 3), -1), np.zeros((3, 3)), {}, r"negative ids \(lowest -1\)"),
        (np.full((3, 3), 2**31), np.zeros((3, 3)), {}, "id 2147483648"),
        (np.full((3, 3), 2**63, np.uint64), np.zeros((3, 3)), {}, "id 9223372036854775808"),
        (np.zeros((3, 3)), np.full((3, 3), "1"), {}, "reference is an array of <U1"),
        (
            np.zeros((3, 3)),
            np.zeros((3, 3)),
            {"spacing_mm": 1.0},
            r"spacing_mm 1\.0 must hold one value for each of the 2 axes",
        ),
        (np.zeros((3, 3)), np.zeros((3, 3)), {"matching": "best"}, "no matching rule 'best'"),
        (np.zeros((3, 3)), np.zeros((3, 3)), {"clu": "eq4"}, "no CLU definition 'eq4'"),
        (np.zeros((3, 3)), np.zeros((3, 3)), {"undefined": "zero"}, "no policy for undefined ratios 'zero'"),
        (np.zeros((3, 3)), np.zeros((3, 3)), {"connectivity": 7}, "connectivity is 7; it must be one of 4, 8"),
        (np.zeros((3, 3)), np.zeros((3, 3)), {"iou_threshold": 1.0}, "threshold is 1.0"),
        (
            np.zeros((3, 3)),
            np.zeros((3, 3)),
            {"spacing_mm": (1, 1, 1)},
            r"spacing_mm \(1, 1, 1\) must hold one value for each of the 2 axes",
        ),
        (
            np.zeros((3, 3)),
            np.zeros((3, 3)),
            {"spacing_mm": (1, 0)},
            r"spacing_mm \(1\.0, 0\.0\) must hold positive numbers",
        ),
    ],
)
def test_bad_input_is_one_clear_error(prediction, reference, options, message):
    spacing_mm = options.pop("spacing_mm", (1, 1))
    with pytest.raises(InputError, match=message):
        evaluate_case(prediction, reference, spacing_mm, **options)


def test_the_array_functions_need_neither_torch_nor_nnunet():
    code = (
        "import nnunetv2_conflunet.evaluation, sys; print(sorted({'torch', 'nnunetv2', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_inputs_stay_as_they_are():
    prediction, reference = line((1, 0, 5)), line((2, 1, 6))
    prediction.flags.writeable = reference.flags.writeable = False
    evaluate_case(prediction, reference, (1, 1))
