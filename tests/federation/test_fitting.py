"""The spacing of a joint plan is the median of all sites' persons, to the band, and sites resample to it."""

import statistics

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import LayoutError, SpecError
from builder.federation.counting import EDGES, HISTOGRAM, binned, tell_levels, tell_total
from builder.federation.documents import Offer, Plan, digest, read, written
from builder.federation.estimates import median_bands
from builder.federation.fitting import fit_spacing
from builder.federation.joint import make_plan
from builder.federation.local import local_spec
from builder.federation.showing import shown
from builder.federation.tallies import merge, tally
from builder.federation.told import Ledger, disclosed
from builder.specfile import parse_spec
from builder.transforms.resample import Resample
from tests.federation.test_sites import POLICY, TEXT, signed, teller

SPEC = parse_spec(TEXT.encode(), name="spec")
SLICES, ROWS = "spacing_slice_mm", "spacing_row_mm"
THICK = st.lists(st.sampled_from([0.4, 0.625, 1.0, 1.25, 2.0, 3.0, 3.75, 5.0, 12.0]), min_size=6, max_size=30)


def offer_of(site: str, folder, slices: list[float], rows: list[float] | None = None, k: int = 3) -> Offer:
    """Return an offer of persons with these spacings; that of rows is told only where there is one."""
    spacing = {SLICES: slices, **({ROWS: rows} if rows else {})}
    persons = pa.table(
        {"person_key": [f"{site}{n}" for n in range(len(slices))], "sex": ["F"] * len(slices), **spacing}
    )
    (folder / f"{site}.json").unlink(missing_ok=True)
    by = teller(Ledger.open(str(folder / f"{site}.json")), persons, k)
    tables = [tell_total(by, persons.num_rows)]
    strata = tell_levels(by, "sex", persons, {"sex": ["F", "M"]})
    for quantity in spacing:
        named, bins = binned(persons, quantity)
        tables.append(tell_levels(by, f"{HISTOGRAM}{quantity}", named, bins))
    return Offer(
        federation="joint-lesions", sequence=1, nonce="0" * 32, site=site, spec=digest(signed()), k=k,
        strata=strata, tables=tables, lock={}, withheld=[],
    )  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["lakeside", "north", "university"]), THICK, min_size=1), st.sampled_from([3, 5])
)
def test_the_pooled_median_lies_between_the_bands_that_are_stated(tmp_path, sites, k):
    offers = {site: offer_of(site, tmp_path, found, None, k) for site, found in sites.items()}
    middle = statistics.median_low([value for found in sites.values() for value in found])
    band = max(n for n, edge in enumerate(EDGES[SLICES]) if edge <= middle)
    first, last, likely = median_bands(merge(tally(disclosed(offer.tables[1], k)) for offer in offers.values()))
    assert first <= band <= last
    assert first <= likely <= last


def test_those_who_are_hidden_are_shared_out_evenly(tmp_path):
    """The fitted spacing is the median of all persons where most are in bands that are told."""
    slices = {
        "lakeside": [1.0] * 4 + [2.0] * 30 + [5.0] * 60,
        "north": [2.0] * 20 + [3.0] * 45 + [5.0] * 2,
    }
    rows = {site: [0.8] * 30 + [0.4] * (len(own) - 30) for site, own in slices.items()}
    offers = {site: offer_of(site, tmp_path, own, rows[site]) for site, own in slices.items()}
    everybody = [mm for own in slices.values() for mm in own]
    fitted = fit_spacing(SPEC, offers)
    assert fitted.mm[0] == statistics.median_low(everybody) == 3.0
    assert any("spacing_slice_mm: the band of the median begins at 3 mm" in rule for rule in fitted.rules)


def test_sites_resample_to_the_spacing_of_the_plan_and_keep_what_the_spec_keeps(tmp_path):
    offers = {
        "lakeside": offer_of("lakeside", tmp_path, [5.0] * 9 + [3.0] * 9, [0.8] * 9 + [0.6] * 9),
        "north": offer_of("north", tmp_path, [5.0] * 8 + [2.0] * 40, [0.4] * 8 + [0.6] * 40),
    }
    plan = make_plan(signed(), offers, sequence=1, nonce="1" * 32, fit=["spacing"])
    assert plan.spacing_mm == [2.0, 0.5, 0.5]
    assert "resampled to 2 x 0.5 x 0.5 mm" in shown(plan)
    assert any("median person" in rule for rule in plan.rules)
    for text, wanted in (
        (TEXT, (2.0, 0.5, 0.5)),
        (TEXT.replace("[4.0, 4.0, 4.0]", "[4.0, null, null]"), (2.0, None, None)),
    ):
        local, _ = local_spec(signed(text), POLICY, plan)
        assert [step.spacing_mm for step in local.transforms if isinstance(step, Resample)] == [wanted]
    unfitted = make_plan(signed(), offers, sequence=1, nonce="1" * 32)
    assert local_spec(signed(), POLICY, unfitted)[0].transforms == local_spec(signed(), POLICY)[0].transforms


def test_what_cannot_be_fitted_is_said(tmp_path):
    known = offer_of("north", tmp_path, [5.0] * 8 + [2.0] * 40, [0.4] * 8 + [0.6] * 40)
    hidden = offer_of("lakeside", tmp_path, [5.0] * 90, [0.6] * 90)  # all in one band, which zeros hide
    with pytest.raises(LayoutError, match=r"found 40 of 138 persons in bands that the sites tell"):
        fit_spacing(SPEC, {"lakeside": hidden, "north": known})
    offers = {"lakeside": offer_of("lakeside", tmp_path, [5.0] * 9 + [3.0] * 9), "north": known}
    with pytest.raises(LayoutError, match=r"lakeside: found no histogram of spacing_row_mm .* under histograms in its"):
        make_plan(signed(), offers, sequence=1, nonce="1" * 32, fit=["spacing"])
    with pytest.raises(SpecError, match="found no resample step"):
        fit_spacing(SPEC.model_copy(update={"transforms": ()}), offers)


def test_an_axis_that_the_spec_keeps_needs_no_histogram(tmp_path):
    offers = {"north": offer_of("north", tmp_path, [5.0] * 8 + [2.0] * 40)}
    text = TEXT.replace("[4.0, 4.0, 4.0]", "[4.0, null, null]")
    plan = make_plan(signed(text), offers, sequence=1, nonce="1" * 32, fit=["spacing"])
    assert plan.spacing_mm == [2.0, None, None]
    assert read(written(plan), Plan, where="plan")[0] == plan
    assert "resampled to 2 x as it is x as it is mm" in shown(plan)
    local, _ = local_spec(signed(text), POLICY, plan)
    assert [step.spacing_mm for step in local.transforms if isinstance(step, Resample)] == [(2.0, None, None)]
    with pytest.raises(SpecError, match="found no resample step with a spacing"):
        fit_spacing(parse_spec(TEXT.replace("[4.0, 4.0, 4.0]", "[null, null, null]").encode(), name="spec"), offers)
