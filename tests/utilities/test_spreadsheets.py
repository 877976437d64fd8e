"""CSV files hold the names as they are, whatever signs these have."""

import csv

import pandas as pd
import pytest

from nnunetv2_conflunet.evaluation.cohort.confidences import read_confidences
from nnunetv2_conflunet.formats.case_table import read_texts
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.spreadsheets import as_csv, read_csv


@pytest.mark.parametrize("name", ["a\rb", "a\nb", "a\r\nb", "\ra", 'a"\r', "a,b", "=1"])
def test_names_are_read_as_they_were(tmp_path, name):
    table = pd.DataFrame({"case": [name, "x"], "volume_mm3": [1.5, None], "merged": [True, False]})
    (tmp_path / "a.csv").write_bytes(as_csv(table).encode())
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), table)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        assert [len(row) for row in csv.reader(file)] == [3, 3, 3]


def test_plain_names_are_not_quoted():
    assert as_csv(pd.DataFrame({"case": ["a"], "TP": [2]})) == "case,TP\na,2\n"


def test_a_table_without_rows_has_its_head():
    assert as_csv(pd.DataFrame({"case": [], "TP": []})) == "case,TP\n"


@pytest.mark.parametrize("read", [read_csv, read_confidences, read_texts])
def test_rows_with_more_cells_than_the_header_are_not_moved_to_other_columns(tmp_path, read):
    file = tmp_path / "a.csv"
    file.write_text("id,confidence\n1,0.5,7\n2,0.25,8\n")
    with pytest.raises(InputError, match="its rows have more cells than its header"):
        read(file)


def test_a_separator_at_the_end_of_each_row_is_passed_over(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("id,confidence\n1,0.5,\n2,0.25,\n")
    assert read_confidences(file).to_dict() == {1: 0.5, 2: 0.25}
    assert read_csv(file).to_dict("list") == {"id": [1, 2], "confidence": [0.5, 0.25]}


def test_a_table_of_a_header_alone_is_empty(tmp_path):
    (tmp_path / "a.csv").write_text("id,confidence\n")
    assert len(read_confidences(tmp_path / "a.csv")) == len(read_csv(tmp_path / "a.csv")) == 0
