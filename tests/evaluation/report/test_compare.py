"""Comparison of methods."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support import UNWRITABLE, unwritable

from nnunetv2_conflunet.commands import compare as compare_command
from nnunetv2_conflunet.evaluation.cohort.results import load_methods
from nnunetv2_conflunet.evaluation.metrics.accuracy import ACCURACIES
from nnunetv2_conflunet.evaluation.report.comparison import compare_methods
from nnunetv2_conflunet.evaluation.report.comparison_tables import latex_table, markdown_tables
from nnunetv2_conflunet.evaluation.report.differences import holm, paired_difference
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.spreadsheets import read_csv

SETTINGS = {"iou_threshold": 0.1, "matching": "paper"}


def write(folder, metrics, settings=SETTINGS):
    """A summary of `metrics`: {case: {metric: value}}."""
    folder.mkdir(parents=True)
    cases = [{"case": case, "metrics": values} for case, values in metrics.items()]
    (folder / "summary_instances.json").write_text(json.dumps({"metric_per_case": cases, "settings": settings}))
    return folder


def test_differences_are_over_cases_with_both_values():
    first, second = np.array([0.5, 0.7, np.nan, 0.9]), np.array([0.4, np.nan, 0.3, 0.5])
    found = paired_difference(first, second)
    assert (found["n"], found["difference"]) == (2, pytest.approx(0.25))
    assert (found["mean_first"], found["mean_second"]) == (pytest.approx(0.7), pytest.approx(0.45))
    # Two cases: the resampled means are 0.1, 0.25 and 0.4, the outer ones a quarter of the time each.
    assert (found["low"], found["high"]) == (pytest.approx(0.1), pytest.approx(0.4))


def test_p_values_are_those_of_the_textbook_tests():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.6, 0.1, 13), rng.normal(0.5, 0.1, 13)
    found = paired_difference(first, second)
    # The t statistic from its formula, and all 2**13 signs of the ranks.
    d = first - second
    t = d.mean() / (d.std(ddof=1) / np.sqrt(13))
    assert found["p_t"] == pytest.approx(2 * stats.t.sf(abs(t), 12), rel=1e-12)
    ranks = stats.rankdata(abs(d))
    signs = (np.arange(2**13)[:, None] >> np.arange(13)) & 1
    sums = (signs * ranks).sum(axis=1)
    observed = ranks[d > 0].sum()
    p = 2 * min((sums >= observed).mean(), (sums <= observed).mean())
    assert found["p_wilcoxon"] == pytest.approx(min(p, 1), rel=1e-12)


def test_equal_differences_are_ties_whatever_rounding_makes_of_them():
    # In tenths: 2, 2, 2, -2, 1, 3, and 0, which does not count; as floats, 0.2 in three ways.
    first = np.array([0.4, 0.8, 0.9, 0.3, 0.5, 0.7, 0.1 + 0.2])
    second = np.array([0.2, 0.6, 0.7, 0.5, 0.4, 0.4, 0.3])
    tenths = np.array([2, 2, 2, -2, 1, 3])
    ranks = stats.rankdata(abs(tenths))
    signs = (np.arange(2**6)[:, None] >> np.arange(6)) & 1
    sums = (signs * ranks).sum(axis=1)
    observed = ranks[tenths > 0].sum()
    p = 2 * min((sums >= observed).mean(), (sums <= observed).mean())
    assert paired_difference(first, second)["p_wilcoxon"] == pytest.approx(p, rel=1e-12)
    # Volumes in mm3 have the same digits.
    assert paired_difference(1e6 * first, 1e6 * second)["p_wilcoxon"] == pytest.approx(p, rel=1e-12)
    noise = paired_difference(np.array([0.1 + 0.2, 0.5]), np.array([0.3, 0.5]))
    assert (noise["p_t"], noise["p_wilcoxon"]) == (1, 1)


def test_the_interval_is_seeded_and_near_the_one_of_theory():
    rng = np.random.default_rng(2)
    first, second = rng.normal(0.6, 0.1, 400), rng.normal(0.5, 0.1, 400)
    found = paired_difference(first, second, seed=5)
    assert found == paired_difference(first, second, seed=5)
    half = 1.96 * (first - second).std(ddof=1) / 20
    d = found["difference"]
    assert (found["low"], found["high"]) == (pytest.approx(d - half, abs=0.001), pytest.approx(d + half, abs=0.001))


@pytest.mark.filterwarnings("error")
def test_degenerate_comparisons():
    same = paired_difference(np.array([0.5, 0.6]), np.array([0.5, 0.6]))
    assert (same["p_t"], same["p_wilcoxon"], same["low"], same["high"]) == (1, 1, 0, 0)
    shifted = paired_difference(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]))
    assert shifted["p_t"] == 0 and shifted["low"] == shifted["high"] == 1
    for n in (0, 1):
        found = paired_difference(np.ones(n), np.zeros(n))
        assert found["n"] == n and np.isnan(found["p_t"]) and np.isnan(found["low"])


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1; never below the one before.
    np.testing.assert_allclose(holm([0.04, 0.01, np.nan, 0.02]), [0.04, 0.03, np.nan, 0.04])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1.0, 1.0])


@pytest.fixture
def methods(tmp_path):
    a = {"1": {"F1": 0.5, "DiC": 3}, "2": {"F1": 0.75, "DiC": 0}, "3": {"F1": np.nan, "DiC": 1}}
    b = {"1": {"F1": 0.5, "DiC": 1}, "2": {"F1": 0.25, "DiC": 0}, "3": {"F1": 0.1, "DiC": 0}, "4": {"F1": 1, "DiC": 9}}
    return [write(tmp_path / "cc_1", a), write(tmp_path / "acls", b)]


def test_tables_side_by_side(methods):
    comparison = compare_methods(load_methods(methods), ["F1", "DiC"])
    assert comparison.n == {"F1": 2, "DiC": 3}
    assert comparison.means["F1"]["acls"][0] == 0.375
    assert comparison.differences[["metric", "first", "second", "n", "difference"]].to_numpy().tolist() == [
        ["F1", "cc_1", "acls", 2, 0.25],
        ["DiC", "cc_1", "acls", 3, 1.0],
    ]
    text = markdown_tables(comparison)
    # High is best for F1, low for DiC.
    assert "| F1 (%) | **62.5 ± 17.7** | 37.5 ± 17.7   | 2     |" in text
    assert "| DiC    | 1.3 ± 1.5       | **0.3 ± 0.6** | 3     |" in text
    assert "1 cases of acls are not in every evaluation and are left out." in text
    latex = latex_table(comparison)
    assert r"cc\_1 & \textbf{62.5 $\pm$ 17.7} & 1.3 $\pm$ 1.5 \\" in latex
    assert latex.count(r"\\") == 4


def test_accuracies_are_pooled_over_the_common_cases_and_compared_when_asked(tmp_path):
    def rows(**tp):
        """Cases of two predictions and two references."""
        counts = {"n_prediction": 2, "n_reference": 2}
        return {case: counts | dict.fromkeys(ACCURACIES, n / (4 - n)) for case, n in tp.items()}

    folders = [write(tmp_path / "a", rows(one=2, two=0)), write(tmp_path / "b", rows(one=1, two=1, three=2))]
    comparison = compare_methods(load_methods(folders), ["accuracy_50"])
    text = markdown_tables(comparison)
    assert "## AP without confidence: TP / (TP + FP + FN) by IoU" in text
    # Of four references of the common cases, both found two.
    assert "| 0.50 | 33.3 | 33.3 |" in text and "| mean | 33.3 | 33.3 |" in text
    assert "| accuracy_50 (%) | **50.0 ± 70.7** | 33.3 ± 0.0 | 2     |" in text


def test_an_evaluation_of_an_earlier_version_is_compared_without_accuracies(methods, tmp_path):
    row = {"F1": 1, "DiC": 0, "n_prediction": 1, "n_reference": 1, **dict.fromkeys(ACCURACIES, 1.0)}
    new = write(tmp_path / "new", {"1": row, "2": row})
    comparison = compare_methods(load_methods([methods[0], new]), ["F1"])
    assert comparison.accuracies == {} and "AP without" not in markdown_tables(comparison)


def test_published_variants_are_compared_when_asked(tmp_path):
    settings = {**SETTINGS, "clu": "published"}
    rows = [{"1": {"F1_CLU_tier_1": a}, "2": {"F1_CLU_tier_1": b}} for a, b in ((0.5, 0.7), (0.4, 0.6))]
    folders = [write(tmp_path / name, values, settings) for name, values in zip("ab", rows, strict=True)]
    text = markdown_tables(compare_methods(load_methods(folders), ["F1_CLU_tier_1"]))
    assert "| F1_CLU_tier_1 (%) | **60.0 ± 14.1** | 50.0 ± 14.1 | 2     |" in text


def test_a_difference_that_rounds_to_zero_has_no_sign(tmp_path):
    rows = [{"1": {"F1": a}, "2": {"F1": b}} for a, b in ((0.5, 0.7), (0.5001, 0.7001))]
    folders = [write(tmp_path / name, values) for name, values in zip("ab", rows, strict=True)]
    assert "| 0.0 [0.0, 0.0] " in markdown_tables(compare_methods(load_methods(folders), ["F1"]))


def test_names_are_text_in_latex(tmp_path):
    folders = [write(tmp_path / name, {"1": {"F1": 1.0}}) for name in ("a~^b", "100%")]
    text = latex_table(compare_methods(load_methods(folders), ["F1"]))
    assert r"a\textasciitilde{}\textasciicircum{}b & " in text and r"100\% & " in text


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_line_break_in_a_name_ends_no_row(methods, end):
    comparison = compare_methods(load_methods(methods, [f"a{end}b", "c"]), ["F1"])
    assert "| F1 (%) | a b - c |" in markdown_tables(comparison)
    assert "\na b & " in latex_table(comparison)


def test_equal_printed_means_are_both_best(tmp_path):
    folders = [write(tmp_path / name, {"1": {"F1": v}, "2": {"F1": v}}) for name, v in (("a", 0.50001), ("b", 0.5))]
    assert markdown_tables(compare_methods(load_methods(folders), ["F1"])).count("**50.0 ± 0.0**") == 2


def test_three_methods_share_one_family(tmp_path):
    rng = np.random.default_rng(0)
    folders = [
        write(tmp_path / name, {str(i): {"F1": rng.uniform(), "PQ": rng.uniform()} for i in range(8)}) for name in "abc"
    ]
    differences = compare_methods(load_methods(folders), ["F1", "PQ"]).differences
    assert len(differences) == 6
    pd.testing.assert_series_equal(differences["p_t_holm"], pd.Series(holm(differences["p_t"])), check_names=False)
    assert differences["p_t_holm"].min() == pytest.approx(min(1, 6 * differences["p_t"].min()))


def test_a_metric_named_twice_is_compared_once(methods):
    once, twice = (compare_methods(load_methods(methods), names) for names in (["F1", "DiC"], ["F1", "DiC", "F1"]))
    pd.testing.assert_frame_equal(once.differences, twice.differences)
    assert markdown_tables(once) == markdown_tables(twice) and latex_table(once) == latex_table(twice)


def compare(*arguments):
    compare_command.compare(compare_command._parser().parse_args([str(argument) for argument in arguments]))


def test_names_are_no_formulas_in_the_table_and_the_true_ones_when_read(methods, tmp_path):
    names = "=cmd|' /C calc'!A0", "@b"
    compare(*methods, "--names", *names, "--metrics", "F1", "-o", tmp_path / "o")
    with open(tmp_path / "o" / "comparison.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["first"], row["second"]) == ("'" + names[0], "'@b")
    (row,) = read_csv(tmp_path / "o" / "comparison.csv").to_dict("records")
    assert (row["first"], row["second"]) == names


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_named_before_the_work(methods, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(compare_command, "compare_methods", None)
    with unwritable(kind, tmp_path) as place, pytest.raises(InputError, match=UNWRITABLE[kind]):
        compare(*methods, "-o", place)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a summary by nnUNetv2_conflunet_evaluate"),
        ("null", "is not a summary"),
        ('{"metric_per_case": [], "settings": 3}', "is not a summary"),
        ('{"metric_per_case": [{"case": "a", "metrics": {}}], "settings": 3}', "is not a summary"),
        ('{"metric_per_case": [], "settings": {}}', "is not a summary"),
        ('{"metric_per_case": 3, "settings": {}}', "is not a summary"),
        ('{"metric_per_case": [3], "settings": {}}', "is not a summary"),
        ('{"metric_per_case": [{"metrics": {}}], "settings": {}}', "is not a summary"),
        ('{"metric_per_case": [{"case": "a", "metrics": 3}], "settings": {}}', "is not a summary"),
        ('{"metric_per_case": [{"case": "../a", "metrics": {}}], "settings": {}}', "is not a summary"),
    ],
)
def test_a_summary_that_cannot_be_read_is_named(methods, content, message):
    (methods[1] / "summary_instances.json").write_text(content)
    with pytest.raises(InputError, match=rf"acls/summary_instances\.json {message}"):
        load_methods(methods)


def test_faults(methods, tmp_path):
    with pytest.raises(InputError, match="at least two evaluations"):
        compare_methods(load_methods(methods[:1]), ["F1"])
    with pytest.raises(InputError, match="seed is -1; it must be 0 or a positive number"):
        compare_methods(load_methods(methods), ["F1"], seed=-1)
    with pytest.raises(InputError, match=r"absent.*summary_instances\.json|absent does not exist"):
        load_methods([methods[0], tmp_path / "absent"])
    with pytest.raises(InputError, match="as many different names, not x, x"):
        load_methods(methods, ["x", "x"])
    with pytest.raises(InputError, match="no metric F2"):
        compare_methods(load_methods(methods), ["F2"])
    other = write(tmp_path / "other", {"9": {"F1": 1, "DiC": 1}})
    with pytest.raises(InputError, match="no case in common"):
        compare_methods(load_methods([methods[0], other]), ["F1"])
    strict = write(tmp_path / "strict", {"1": {"F1": 1, "DiC": 1}}, {**SETTINGS, "iou_threshold": 0.5})
    with pytest.raises(InputError, match="cc_1 and strict were evaluated with a different iou_threshold"):
        compare_methods(load_methods([methods[0], strict]), ["F1"])


@pytest.mark.parametrize("differing", [{"n_reference": 3}, {"load_reference_mm3": 91.0}])
def test_other_references_under_the_same_names_are_refused(tmp_path, differing):
    row = {"F1": 0.5, "n_reference": 2, "load_reference_mm3": 90.0}
    first = write(tmp_path / "first", {"1": row, "2": row, "3": row})
    second = write(tmp_path / "second", {"1": row, "2": row | differing, "4": row | differing})
    with pytest.raises(InputError, match="first and second were evaluated with different references of 2: numbers or"):
        compare_methods(load_methods([first, second]), ["F1"])
    # As the spacing of another header rounds it.
    rounded = write(tmp_path / "rounded", {"1": row | {"load_reference_mm3": 90.00001}})
    assert compare_methods(load_methods([first, rounded]), ["F1"]).n == {"F1": 1}


def test_an_evaluation_of_an_earlier_version_had_no_smallest_area(tmp_path):
    new = SETTINGS | {"min_area_mm2": 0.0}
    rows = {"1": {"F1": 0.5}, "2": {"F1": 0.7}}
    folders = [write(tmp_path / "new", rows, new), write(tmp_path / "old", rows)]
    for order in (folders, folders[::-1]):
        assert compare_methods(load_methods(order), ["F1"]).n == {"F1": 2}
    folders[0] = write(tmp_path / "other", rows, SETTINGS | {"min_area_mm2": 20.0})
    for order in (folders, folders[::-1]):
        with pytest.raises(InputError, match="different min_area_mm2"):
            compare_methods(load_methods(order), ["F1"])
