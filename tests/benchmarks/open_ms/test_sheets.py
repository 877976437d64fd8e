"""Sheets: as often and as large as the components above 2 mL of the real masks."""

import numpy as np
import pytest
from open_ms import sheets
from open_ms.sheets import draw_plan_with_sheets

from nnunetv2_conflunet.simulation.lesions import LesionStatistics

STATISTICS = LesionStatistics(confluent_share=0.1, near_miss_share=0.02)


@pytest.fixture(scope="module")
def plans() -> list:
    rng = np.random.default_rng(0)
    return [draw_plan_with_sheets(STATISTICS, rng) for _ in range(800)]


def test_load_and_share_of_large_components_are_those_of_the_patients(plans: list):
    # 23 patients of Lesjak et al. 2017: median load 14 mL, 2 % of the components above 2 mL.
    loads_ml = [sum(sum(c.volumes_mm3) for c in plan) / 1000 for plan in plans]
    assert np.median(loads_ml) == pytest.approx(14, abs=2)
    totals = np.array([sum(c.volumes_mm3) for plan in plans for c in plan])
    assert (totals > 2000).mean() == pytest.approx(0.02, abs=0.004)


def test_about_a_fifth_of_the_lesions_touch(plans: list):
    units = np.array([len(c.volumes_mm3) for plan in plans for c in plan])
    assert units[units > 1].sum() / units.sum() == pytest.approx(0.2, abs=0.025)


def test_units_of_sheets_stay_below_2_ml(plans: list):
    sheets = [c for plan in plans for c in plan if sum(c.volumes_mm3) > 2000]
    assert max(len(c.volumes_mm3) for c in sheets) > 5
    assert max(v for c in sheets for v in c.volumes_mm3) <= 2000
    assert min(len(c.volumes_mm3) for c in sheets) == 2


def test_units_of_a_sheet_add_up_to_its_volume(monkeypatch: pytest.MonkeyPatch):
    # Without spread every sheet has the middle volume, exp(8.87) mm3.
    monkeypatch.setattr(sheets, "LOG_VOLUME_SD", 0.0)
    rng = np.random.default_rng(1)
    drawn = [
        c.volumes_mm3 for _ in range(50) for c in draw_plan_with_sheets(STATISTICS, rng) if max(c.volumes_mm3) >= 800
    ]
    whole = [units for units in drawn if sum(units) > 6000]
    assert len(whole) > 20
    for units in whole:
        assert sum(units) == pytest.approx(7115.3, abs=0.1)
        assert all(800 <= unit <= 2000 for unit in units)


def test_patients_with_few_lesions_seldom_have_a_sheet(plans: list):
    lesions = np.array([sum(len(c.volumes_mm3) for c in plan if sum(c.volumes_mm3) < 2000) for plan in plans])
    has_sheet = np.array([any(sum(c.volumes_mm3) > 2000 for c in plan) for plan in plans])
    # 2 of 10 and 11 of 13 patients; a few of the other clusters become as large.
    assert has_sheet[lesions < 25].mean() == pytest.approx(0.2, abs=0.08)
    assert has_sheet[lesions > 45].mean() == pytest.approx(0.85, abs=0.08)
