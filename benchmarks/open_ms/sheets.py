"""Sheets of confluent lesions: components of several milliliters, mostly next to the ventricles."""

import numpy as np

from nnunetv2_conflunet.simulation.lesions import MAX_UNIT_VOLUME_MM3, Component, LesionStatistics, draw_plan

# Of the 23 masks of Lesjak et al. 2017 (doi:10.1007/s12021-017-9348-7) 13 have components above 2 mL: 2 of the 10 with
# fewer than 35 components and 11 of the other 13. Three patients have one, six have two and four have three of them;
# their volume is log-normal.
FEW_LESIONS, SHARE_OF_FEW, SHARE_OF_MANY = 0.6, 0.2, 0.85
SHARES_OF_COUNTS = 3 / 13, 6 / 13, 4 / 13
LOG_VOLUME_MEAN, LOG_VOLUME_SD = 8.87, 0.93
SHEET_VOLUME_MM3 = 2100.0, 15000.0
SMALLEST_UNIT_MM3 = 800.0


def draw_plan_with_sheets(statistics: LesionStatistics, rng: np.random.Generator) -> list[Component]:
    """The lesions of one patient, drawn by :func:`.lesions.draw_plan`, plus sheets.

    Returns:
        The components, sheets first.
    """
    plan = draw_plan(statistics, rng)
    lesions = sum(len(component.volumes_mm3) for component in plan)
    share = SHARE_OF_FEW if lesions < FEW_LESIONS * statistics.mean_lesions else SHARE_OF_MANY
    count = 1 + int(rng.choice(3, p=SHARES_OF_COUNTS)) if rng.random() < share else 0
    volumes = np.clip(np.exp(rng.normal(LOG_VOLUME_MEAN, LOG_VOLUME_SD, count)), *SHEET_VOLUME_MM3)
    return [_sheet(float(volume), rng) for volume in -np.sort(-volumes)] + plan


def _sheet(volume_mm3: float, rng: np.random.Generator) -> Component:
    """A component with a volume above 1.6 mL, divided into at least two units of 0.8 to 2 mL."""
    units, rest = [], volume_mm3
    while rest > 2 * SMALLEST_UNIT_MM3:
        largest = min(MAX_UNIT_VOLUME_MM3, rest - SMALLEST_UNIT_MM3)
        units.append(float(np.exp(rng.uniform(*np.log([SMALLEST_UNIT_MM3, largest])))))
        rest = volume_mm3 - sum(units)
    return Component((*units, rest))
