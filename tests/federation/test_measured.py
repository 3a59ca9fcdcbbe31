"""Offers for which images are measured tell limits and sizes, and a plan fits one clip for all sites on them."""

import re
import statistics
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from builder.errors import LayoutError, SpecError
from builder.federation.counting import UNITS, with_measures
from builder.federation.documents import Offer, Plan, read, written
from builder.federation.fitting import fit_clip
from builder.federation.joint import make_plan
from builder.federation.local import local_spec
from builder.federation.offers import Newcomers, make_offer
from builder.federation.receipts import Published, make_receipt
from builder.federation.showing import shown
from builder.federation.told import Ledger
from builder.specfile import parse_spec
from builder.transforms.intensity import Intensity
from tests.federation.test_receipts import KEY, NOBODY, PLAN
from tests.federation.test_sites import POLICY, TEXT, signed
from tests.federation.test_suppression import attacked

PERCENT = TEXT.replace("clip: [-1000, 1000]", "clip_percent: [0.5, 99.5]")
SPEC = parse_spec(PERCENT.encode(), name="spec")
SIZE = "label_ml of tumor.tumor"
LOW, HIGH = "clip_low of HU", "clip_high of HU"
TELLS = POLICY.model_copy(update={"histograms": (LOW, HIGH, SIZE)})
EDGES = UNITS["HU"]
Limits = Sequence[tuple[float, float] | None]


def measures(limits: Limits, *, unit: str = "HU", sizes: Sequence[float | None] = ()) -> pa.Table:
    """Return what was measured of one case a person; of whom there are no limits, nothing was."""
    known = [(n, own) for n, own in enumerate(limits) if own is not None]
    return pa.table(
        {
            "case_key": pa.array([f"c{n}" for n, _ in known], pa.string()),
            "unit": pa.array([unit] * len(known), pa.string()),
            "clip_low": pa.array([float(low) for _, (low, _) in known], pa.float64()),
            "clip_high": pa.array([float(high) for _, (_, high) in known], pa.float64()),
            "label.tumor.tumor.volume_mm3": pa.array([sizes[n] if sizes else None for n, _ in known], pa.float64()),
        }
    )


def offered(
    ledger: Ledger, limits: Limits, *, site: str = "north", text: str = PERCENT, tells: Sequence[str] = (LOW, HIGH),
    sizes: Sequence[float] = (),
) -> Offer:  # fmt: skip
    size = len(limits)
    rows = pa.table(
        {
            "person_key": [f"{site}{n}" for n in range(size)], "case_key": [f"c{n}" for n in range(size)],
            "included": [True] * size, "sex": ["F", "M"] * (size // 2) + ["F"] * (size % 2),
        }
    )  # fmt: skip
    policy = TELLS.model_copy(update={"site": site, "histograms": tuple(tells)})
    found = Newcomers(rows.select(["person_key", "sex"]), rows, {}, measured=measures(limits, sizes=sizes))
    made = make_offer(signed(text), policy, local_spec(signed(text), policy)[1], found, ledger, key=KEY, nonce="0" * 32)
    ledger.note(made)
    return made


def at(folder, site: str) -> Ledger:
    (folder / f"{site}.json").unlink(missing_ok=True)
    return Ledger.open(str(folder / f"{site}.json"))


def of(made: Offer, quantity: str) -> dict[str, int | None]:
    (table,) = [table for table in made.tables if table.name == f"histogram of {quantity}"]
    return {row.levels[0]: row.persons for row in table.rows}


RARE = [(-1500.0, 120.0), (-800.0, 700.0), (-60.0, 2500.0)]
"""Few persons in further bands: without them those of one band would be everybody less those of the others."""

NORTH = [*[(-1010.0, 180.0)] * 12, *[(-990.0, 280.0)] * 14, *RARE]


@pytest.fixture(scope="module")
def north(tmp_path_factory) -> Offer:
    sizes = [20_000.0] * 10 + [50_000.0] * 16 + [500.0, 5_000_000.0, 0.0]
    return offered(at(tmp_path_factory.mktemp("north"), "north"), NORTH, tells=TELLS.histograms, sizes=sizes)


@pytest.mark.parametrize("seed", range(1))
def test_the_pooled_medians_lie_within_the_bounds_that_the_plan_states(tmp_path, seed):
    random = np.random.default_rng(seed)
    sites = {
        site: [
            *zip(
                random.choice([-1010.0, -990.0, -940.0], size, p=[0.2, 0.6, 0.2]).tolist(),
                random.choice([180.0, 280.0, 350.0], size, p=[0.3, 0.4, 0.3]).tolist(), strict=True,
            ),
            *RARE,
        ]
        for site, size in (("lakeside", 15 + seed), ("north", 31), ("university", 44 - 9 * seed))
    }  # fmt: skip
    offers = {site: offered(at(tmp_path, site), found, site=site) for site, found in sites.items()}
    fitted = fit_clip(SPEC, offers)
    for place, quantity in enumerate((LOW, HIGH)):
        middle = statistics.median_low(own[place] for found in sites.values() for own in found)
        (line,) = [line for line in fitted.rules if line.startswith(quantity)]
        ends = [float(word) for word in re.findall(r"-?[0-9]+", line)]
        assert ends[2] <= middle < ends[3]
        assert fitted.limits[place] == ends[place]
        assert any(float(a) <= middle < float(b) for a, b in pairwise(EDGES[EDGES.index(ends[2]) :]))


def test_three_sites_take_the_clip_of_all_their_persons(tmp_path):
    sites: dict[str, Limits] = {
        "lakeside": [*[(-1010.0, 180.0)] * 4, *[(-990.0, 280.0)] * 30, *[(-940.0, 350.0)] * 9, *RARE],
        "north": [*[(-990.0, 220.0)] * 12, *[(-1010.0, 280.0)] * 14, *RARE],
        "university": [*[(-990.0, 280.0)] * 18, *[(-940.0, 180.0)] * 7, *RARE, None, None],
    }
    offers = {site: offered(at(tmp_path, site), found, site=site) for site, found in sites.items()}
    plan = make_plan(signed(PERCENT), offers, sequence=1, nonce="1" * 32, fit=["clip"])
    lows, highs = zip(*(own for found in sites.values() for own in found if own is not None), strict=True)
    assert plan.clip == [-1000.0, 300.0]
    assert plan.clip[0] <= statistics.median_low(lows) < statistics.median_low(highs) <= plan.clip[1]
    assert read(written(plan), Plan, where="plan")[0] == plan
    assert "intensities limited to -1000 to 300" in shown(plan)
    for site in sites:
        policy = POLICY.model_copy(update={"site": site})
        local, _ = local_spec(signed(PERCENT), policy, plan)
        (step,) = [step for step in local.transforms if isinstance(step, Intensity)]
        assert (step.clip, step.clip_percent, step.dtype) == ((-1000.0, 300.0), None, "int16")
    unfitted = make_plan(signed(PERCENT), offers, sequence=1, nonce="1" * 32)
    assert unfitted.clip is None
    assert local_spec(signed(PERCENT), POLICY, unfitted)[0].transforms == SPEC.transforms


def test_only_limits_in_the_unit_of_the_image_are_fitted(north):
    """A step that clips what an earlier one has scaled stays as it is."""
    offers = {"north": north}
    scaled = "- {kind: intensity, scale: [0, 1]}\n  - {kind: intensity, clip_percent: [0.5, 99.5], dtype: float32}"
    for change in ("clip: [-1000, 1000], dtype: int16}", "clip: [-1000, 1000], scale: [0, 1]}"):
        text = PERCENT.replace("clip_percent: [0.5, 99.5], dtype: int16}", change)
        with pytest.raises(SpecError, match="found no intensity step with clip_percent"):
            fit_clip(parse_spec(text.encode(), name="spec"), offers)
    text = PERCENT.replace("- {kind: intensity, clip_percent: [0.5, 99.5], dtype: int16}", scaled)
    with pytest.raises(SpecError, match="found no intensity step with clip_percent"):
        fit_clip(parse_spec(text.encode(), name="spec"), offers)


def test_what_cannot_be_fitted_is_said(tmp_path, north):
    told = north
    silent = told.model_copy(update={"tables": told.tables[:1]})
    with pytest.raises(LayoutError, match=r"lakeside: found no histogram of clip_low of HU .* offer with --measure"):
        fit_clip(SPEC, {"north": told, "lakeside": silent})
    with pytest.raises(LayoutError, match=r"found limits of intensities in no unit, .* 'clip_low of HU'"):
        fit_clip(SPEC, {"lakeside": silent})
    alike = offered(at(tmp_path, "north"), [(-1010.0, 180.0)] * 40)  # all in one band, which zeros hide
    with pytest.raises(LayoutError, match="found 0 of 40 persons in bands that the sites tell"):
        fit_clip(SPEC, {"north": alike})
    metal = offered(at(tmp_path, "north"), [*[(-1010.0, 4000.0)] * 30, *[(-990.0, 280.0)] * 14, *RARE])
    with pytest.raises(LayoutError, match="found the median person beyond 3072"):
        fit_clip(SPEC, {"north": metal})


def test_only_what_the_policy_names_leaves_and_only_where_images_are_measured(tmp_path, north):
    sizes = {r: n for r, n in of(north, SIZE).items() if n}
    assert sizes.pop("*") == 29
    assert sizes
    assert sizes.items() <= {"10 to 30": 10, "30 to 100": 16}.items()
    limits = {level: n for level, n in of(north, HIGH).items() if n}
    assert limits.items() <= {"*": 29, "150 to 200": 12, "200 to 300": 14}.items()
    assert len(limits) > 1
    assert north.withheld == []
    rows = pa.table({"person_key": ["a"] * 9, "case_key": ["c0"] * 9, "included": [True] * 9, "sex": ["F"] * 9})
    terms = local_spec(signed(PERCENT), TELLS)[1]
    plain = make_offer(
        signed(PERCENT), TELLS, terms, Newcomers(rows.select(["person_key", "sex"]), rows, {}),
        at(tmp_path, "north"), key=KEY, nonce="0" * 32,
    )  # fmt: skip
    assert [table.name for table in plain.tables] == ["total"]
    assert f"{HIGH}: only an offer tells it for which images are measured" in plain.withheld
    published = Published("a" * 32, {}, rows.append_column("split", pa.array(["train"] * 9)), NOBODY)
    receipt = make_receipt(
        (signed(PERCENT), PLAN), TELLS, terms, published, at(tmp_path, "north"), key=KEY, nonce="0" * 32
    )
    assert f"{HIGH}: offers tell it, and receipts do not" in receipt.withheld
    people = rows.select(["person_key", "sex"])
    silent = POLICY.model_copy(update={"histograms": ()})
    made = make_offer(
        signed(PERCENT), silent, terms, Newcomers(people, rows, {}, measured=measures(NORTH)),
        at(tmp_path, "north"), key=KEY, nonce="0" * 32,
    )  # fmt: skip
    assert [table.name for table in made.tables] == ["total"]


def test_values_of_another_unit_and_cases_that_cannot_be_used_are_no_values():
    rows = pa.table({"case_key": ["c1", "c0", "c9"]})
    held = with_measures(rows, measures([(0.5, 4.0), (0.2, 9.0)], unit="SUVbw"), {})
    assert held["clip_low of SUVbw"].to_pylist() == [0.2, 0.5, None]
    assert held["clip_high of HU"].to_pylist() == [None] * 3


def test_hidden_limits_stay_unknown_over_offers(tmp_path):
    """Eight came, of whom two have a limit of their own, and one is measured in another band than before."""
    ledger = at(tmp_path, "north")
    first = of(offered(ledger, NORTH, tells=(HIGH,)), HIGH)
    later = [*NORTH[:11], (-940.0, 320.0), *NORTH[12:], *[(-990.0, 280.0)] * 6, (-150.0, 60.0), (-30.0, 900.0)]
    second = of(offered(ledger, later, tells=(HIGH,)), HIGH)
    told = [level for level, n in second.items() if n is not None and first[level] is not None]
    assert "*" in told
    assert all(second[level] == first[level] or abs(second[level] - first[level]) >= 3 for level in told)
    for entry in ledger.told[f"histogram of {HIGH}"]:
        for pattern in entry.table.hidden:
            low, high = attacked(entry.table.columns, [entry.table], pattern)
            assert high - low >= 3, pattern


@pytest.mark.parametrize("change", [("[0.5, 99.5]", "[0.5, 99]"), ("[4.0, 4.0, 4.0]", "[2.0, 4.0, 4.0]")])
def test_the_same_persons_are_not_measured_in_two_ways(tmp_path, change):
    """That nobody changes bands under another percentile or grid would tell of everybody; sums tell of few."""
    ledger = at(tmp_path, "north")
    offered(ledger, NORTH, tells=(HIGH,))
    again = offered(ledger, NORTH, tells=(HIGH,))
    assert [table.name for table in again.tables] == ["total", f"histogram of {HIGH}"]
    other = offered(ledger, NORTH, tells=(HIGH,), text=PERCENT.replace(*change))
    assert [table.name for table in other.tables] == ["total"]
    assert any(line.startswith("measures: those told before were measured by other") for line in other.withheld)
