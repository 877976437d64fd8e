"""Signals of lesions, of arrays made by hand."""

import numpy as np
from open_ms.contrast import contrast_table, lesion_signals


def test_signals_are_relative_to_the_rest_of_the_brain():
    image = np.zeros((20, 20, 20), np.int16)
    image[2:18, 2:18, 2:18] = 100
    lesions = np.zeros(image.shape, bool)
    lesions[4:7, 4:7, 4:7] = True
    image[lesions] = 130
    image[5, 5, 5] = 170
    lesions[12:14, 12:16, 12:16] = True  # 2 mm along z: not counted
    np.testing.assert_allclose(lesion_signals(image, lesions), [[27, 1.3, 1.7]])


def test_no_lesions_give_an_empty_array():
    assert lesion_signals(np.ones((4, 4, 4)), np.zeros((4, 4, 4), bool)).shape == (0, 3)


def test_the_table_has_percentiles_by_size():
    cohort = np.array([[20, 1.0, 2.0], [20, 1.5, 2.5], [20, 2.0, 3.0], [5000, 1.4, 1.9]])
    table = contrast_table(cohort, cohort[:1]).splitlines()
    # Of three values the 10th and 90th percentile lie a fifth of a step inside the ends.
    assert table[2] == "| 14-30 mm3 (3, 1) | 1.10 1.50 1.90 | 1.00 1.00 1.00 | 2.10 2.50 2.90 | 2.00 2.00 2.00 |"
    assert table[3] == "| 30-100 mm3 (0, 0) | - | - | - | - |"
    assert table[6] == "| above 2000 mm3 (1, 0) | 1.40 1.40 1.40 | - | 1.90 1.90 1.90 | - |"
