"""Values in the unit of each row: conversions known from the definitions of the units, and what does not convert."""

import sys

import pytest
from pydantic import ValidationError

from builder.clinical import units
from builder.errors import MissingExtra, SpecError
from tests.clinical.making import declared, met, said


def measured(unit: str, *rows: tuple[str, str], **options):
    column = {"from": "value", "type": "number", "unit": unit, "unit_from": "unit", **options}
    data = "id,value,unit\n" + "".join(f"{n},{value},{own}\n" for n, (value, own) in enumerate(rows))
    return met(data.encode(), declared(columns={"x": column}, min_matched=0), [str(n) for n in range(len(rows))])


@pytest.mark.parametrize(
    ("value", "unit", "to", "expected"),
    [
        ("4.5", "ng/mL", "ng/mL", 4.5),
        ("4.5", "ug/L", "ng/mL", 4.5),
        ("0.1", "g/dL", "mg/L", 1000.0),
        ("7.1", "10*3/uL", "10*9/L", 7.1),
        ("5", "[in_i]", "cm", 12.7),
        ("37", "Cel", "K", 310.15),
        ("50", "%", "1", 0.5),
        ("2", "wk", "d", 14.0),
        ("70", "[lb_av]", "kg", 31.7514659),
    ],
)
def test_a_number_is_converted_to_the_unit_of_its_column(value, unit, to, expected):
    assert said(measured(to, (value, unit)))[0]["x"] == pytest.approx(expected, rel=1e-12)


def test_the_range_holds_after_the_conversion_and_a_number_without_a_unit_is_lost():
    match = measured(
        "g/L", ("300", "mg/dL"), ("3", "g/L"), ("300", "g/L"), ("3", ""), max=5, unit_names={"mg%": "mg/dL"}
    )
    assert [row["x"] for row in said(match)] == [3.0, 3.0, None, None]
    assert [issue.problem for issue in match.issues] == ["out of the range None to 5.0", "a number without its unit"]
    assert said(measured("g/L", ("300", "mg%"), unit_names={"mg%": "mg/dL"}))[0]["x"] == 3.0


def test_units_that_do_not_convert_are_refused_by_name():
    with pytest.raises(SpecError, match="x: found the unit 'mmol/L', which does not convert to mg/dL") as refused:
        measured("mg/dL", ("1", "mmol/L"), ("1", "g/L"), ("1", "Meyer"))
    assert "1 texts that are no unit of UCUM (not shown, first in row 4)" in str(refused.value)
    assert "Meyer" not in str(refused.value)


@pytest.mark.parametrize(
    "options", [{"type": "integer"}, {"unit": None}, {"unit_from": None, "unit_names": {"a": "b"}}]
)
def test_options_that_would_do_nothing_are_refused(options):
    with pytest.raises(ValidationError, match="found unit_"):
        declared(columns={"x": {"from": "v", "type": "number", "unit": "g", "unit_from": "u", **options}})


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ucumvert", None)
    units._registry.cache_clear()
    units._parsed.cache_clear()
    with pytest.raises(MissingExtra, match=r"medical-dataset-builder\[units\]"):
        measured("g/L", ("1", "mg/L"))
    assert said(measured("g/L", ("1", "g/L")))[0]["x"] == 1.0
