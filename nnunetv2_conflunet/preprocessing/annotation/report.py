"""What the annotation check found in a dataset: a table to jump from, and a page with pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.pictures.images import read_background
from nnunetv2_conflunet.pictures.pages import explain_planes, render_page
from nnunetv2_conflunet.preprocessing.annotation.cases import CaseSlips
from nnunetv2_conflunet.preprocessing.annotation.kinds import KINDS, Slip, count_slips
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import write_texts
from nnunetv2_conflunet.utilities.parallel import try_cases
from nnunetv2_conflunet.utilities.spreadsheets import as_csv

TABLE, PAGE = "annotations.csv", "annotations.html"
TITLE = "Annotation check: "
# What identifies the two files.
MARKS = "case,kind,id,", f"<title>{TITLE}"
COLOR, OTHER_COLOR = "#ffd400", "#33c3ff"
CONVENTION = {
    "RAS": "World coordinates are RAS in mm, as in the lesion tables and in NIfTI: x to the right, y to the front, z "
    "to the top; for LPS, as in DICOM, change the signs of x and y. ",
    "none": "The files state no orientation; their world coordinates are index times spacing. ",
}
FAINT = "Faint lines show where a lesion lies in other slices."
EXPLAINED = {
    "reused_id": f"Probably two lesions that share an id. {FAINT}",
    "pieces": f"Allowed, and learned as one lesion, whose center may lie outside; or a stray brush stroke. {FAINT}",
    "contact": f"Lesions that barely touch count as confluent; this may be an error. The second id is blue. {FAINT}",
    "single_voxel": "The evaluation leaves out lesions of one voxel by its size filter.",
    "small": "With the same limits, the size filter of the evaluation removes them.",
    "border": "A lesion that continues outside the image has its center elsewhere.",
}


@dataclass(frozen=True)
class Shown:
    """A finding with a picture."""

    case: str
    number: int
    slip: Slip


def annotation_files(folder: Path) -> list[Path]:
    """The files that :func:`write_annotations` writes.

    >>> [file.name for file in annotation_files(Path("check"))]
    ['annotations.csv', 'annotations.html']
    """
    return [folder / TABLE, folder / PAGE]


def write_annotations(
    folder: Path,
    dataset: str,
    found: Mapping[str, CaseSlips],
    cases: Sequence[RawCase],
    images: Mapping[str, Path],
    reader: type[BaseReaderWriter],
    pictures_per_kind: int,
    num_processes: int,
) -> list[Path]:
    """Write the table of all findings, and the page with pictures of some of each kind.

    Args:
        folder: where to write them.
        dataset: its name, for the title.
        found: by case, with at least `pictures_per_kind` views of each kind, as far as there are.
        cases: of the dataset.
        images: the image of each case; one that is missing or cannot be read is shown black.
        reader: class of the dataset's reader.
        pictures_per_kind: how many findings of each kind are shown.
        num_processes: worker processes.

    Returns:
        The two files.
    """
    shown = _shown(found, pictures_per_kind)
    by_case: dict[str, list[Shown]] = {}
    for one in shown:
        by_case.setdefault(one.case, []).append(one)
    maps = {case.case: case.instances for case in cases}
    arguments = {case: (found[case], ones, maps[case], images[case], reader) for case, ones in by_case.items()}
    drawn, _ = try_cases(_draw_case, arguments, num_processes, "Drawing annotations")
    faults = {case: fault for case, (_, fault) in drawn.items() if fault}
    pictures = {(case, number): panels for case, (views, _) in drawn.items() for number, panels in views.items()}
    files = table, page = annotation_files(folder)
    write_texts(
        {
            table: as_csv(annotation_table(found), float_format="%.7g", lineterminator="\n"),
            page: _page(dataset, found, shown, pictures, faults),
        }
    )
    return files


def annotation_table(found: Mapping[str, CaseSlips]) -> pd.DataFrame:
    """One row for each finding of a dataset; see :meth:`CaseSlips.table`."""
    tables = [of_case.table().assign(case=case) for case, of_case in found.items()]
    joined = pd.concat([table for table in tables if len(table)] or tables[:1])
    return joined[["case", *joined.columns.drop("case")]]


def _shown(found: Mapping[str, CaseSlips], pictures_per_kind: int) -> list[Shown]:
    """The first finding of each case, then the second of each, and so on, up to the limit of each kind."""
    shown = []
    for kind in KINDS:
        of_kind = []
        for case, of_case in found.items():
            mine = [Shown(case, i, slip) for i, slip in enumerate(of_case.slips) if slip.kind == kind]
            of_kind += [(rank, case, one) for rank, one in enumerate(mine)]
        of_kind.sort(key=lambda ranked: ranked[:2])
        chosen = [one for _, _, one in of_kind[:pictures_per_kind]]
        shown += sorted(chosen, key=lambda one: (one.case, one.number))
    return shown


def _draw_case(
    found: CaseSlips, shown: list[Shown], instances: Path, image_file: Path, reader: type[BaseReaderWriter]
) -> tuple[dict[int, list[dict[str, Any]]], str]:
    """The pictures of a case by the number of the finding, and why they are black, if they are."""
    image, window, fault = None, (0.0, 1.0), ""
    try:
        image, window = read_background({0: image_file}, 0, reader(), instances, found.geometry)
    except InputError as error:
        fault = str(error)
    drawn = {}
    for one in shown:
        colors = {one.slip.id: COLOR} | ({one.slip.other_id: OTHER_COLOR} if one.slip.other_id else {})
        drawn[one.number] = found.views[one.number].draw(image, window, colors, named=colors)
    return drawn, fault


def _page(
    dataset: str,
    found: Mapping[str, CaseSlips],
    shown: list[Shown],
    pictures: Mapping[tuple[str, int], list[dict[str, Any]]],
    faults: Mapping[str, str],
) -> str:
    counts = {case: count_slips(of_case.slips) for case, of_case in found.items()}
    totals = {kind: sum(count.get(kind, 0) for count in counts.values()) for kind in KINDS}
    rows = [[name, totals[kind], sum(kind in count for count in counts.values())] for kind, name in KINDS.items()]
    kinds = []
    for kind, name in KINDS.items():
        mine = [_entry(one, found[one.case], pictures) for one in shown if one.slip.kind == kind]
        left = totals[kind] - len(mine)
        text = EXPLAINED[kind] + (f" {left} more are in {TABLE}." if left else "")
        if totals[kind]:
            kinds.append({"title": name.capitalize(), "n": totals[kind], "text": text, "slips": mine})
    worlds = sorted({of_case.geometry.world for of_case in found.values()}, reverse=True)
    sections = [section for one in shown for section in found[one.case].views[one.number].sections]
    return render_page(
        __package__,
        "annotations.html.jinja",
        title=TITLE + dataset,
        subtitle=f"{_cases(len(found))}. Findings are hints and need not be mistakes; nothing was changed or refused.",
        notes=_notes(found, faults),
        counts={"header": ["finding", "findings", "cases"], "rows": rows},
        explanation="".join(CONVENTION[world] for world in worlds) + (explain_planes(sections) if sections else ""),
        kinds=kinds,
    )


def _notes(found: Mapping[str, CaseSlips], faults: Mapping[str, str]) -> list[str]:
    unknown = [case for case, of_case in found.items() if not of_case.knows_sides]
    notes = []
    if faults:
        first = next(iter(faults.values()))
        notes.append(f"Shown without the image: {_cases(len(faults))} ({list_some(list(faults), 3)}). {first}")
    if unknown:
        notes.append(
            f"Hemispheres were not told apart in {len(unknown)} of {len(found)} cases ({list_some(unknown, 3)}): the "
            "image has no orientation or is not as large as a head. There, only the distance between the pieces of an "
            "id tells whether it was used twice."
        )
    if len(unknown) < len(found):
        notes.append(
            "The middle of the image stands for the plane between the hemispheres; a head that lies off center or "
            "turned shifts it. So look at the picture."
        )
    return notes


def _entry(one: Shown, found: CaseSlips, pictures: Mapping[tuple[str, int], list[dict[str, Any]]]) -> dict[str, Any]:
    row = found.table().iloc[one.number]
    other = "" if one.slip.other_id is None else f" and {one.slip.other_id}"
    voxel = ", ".join(str(row[f"voxel_{axis}"]) for axis in "ijk")
    world = ", ".join(f"{row[f'world_{axis}_mm']:.1f}" for axis in "xyz")
    size = f"{one.slip.n_voxels} voxel{'s' * (one.slip.n_voxels > 1)}"
    convention = "" if found.geometry.world == "none" else f" ({found.geometry.world})"
    return {
        "title": f"{one.case}, id {one.slip.id}{other}",
        "text": one.slip.text,
        "place": f"voxel {voxel}; world {world} mm{convention}; {size}",
        "pictures": pictures[one.case, one.number],
    }


def _cases(n: int) -> str:
    return f"{n} case{'s' * (n != 1)}"
