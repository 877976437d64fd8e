"""CSV files hold the names as they are, whatever signs these have."""

import csv

import pandas as pd
import pytest

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
