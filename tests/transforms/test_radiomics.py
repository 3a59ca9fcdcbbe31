"""Features of masks against the consensus of IBSI's digital phantom and MIRP used by hand: ``make test-radiomics``.

The phantom is that of the IBSI reference manual (arXiv:1612.07003, chapter "Reference data sets", figure of the test
volume), CC-BY-4.0; the values are its reference values, with the tolerances of the compliance spreadsheet.
"""

import logging
import warnings
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy import stats

import builder
from builder.errors import CaseError, MissingExtra
from builder.model.case import Case, Mask, Segment, ValueDomain, Volume
from builder.run.pipeline import build
from builder.transforms import AnyTransform, Radiomics, radiomics
from builder.transforms.radiomics import named
from tests import synthetic
from tests.transforms.cases import make_case, make_geometry

ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyTransform)

PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
"""(slice, row, column), voxels of 2 mm; 0 is not in the region. 74 voxels are."""

# feature: reference value, tolerance; without one, all digits that the manual gives must be met
CONSENSUS = """
morph_volume 556 4; morph_vol_approx 592 4; morph_area_mesh 388 3; morph_av 0.698 0.004; morph_comp_1 0.0411 0.0003
morph_comp_2 0.599 0.004; morph_sph_dispr 1.19 0.01; morph_sphericity 0.843 0.005; morph_asphericity 0.186 0.001
morph_com 0.672 0.004; morph_diam 13.1 0.1; morph_pca_maj_axis 11.4 0.1; morph_pca_min_axis 9.31 0.06
morph_pca_least_axis 8.54 0.05; morph_pca_elongation 0.816 0.005; morph_pca_flatness 0.749 0.005
morph_vol_dens_aabb 0.869 0.005; morph_area_dens_aabb 0.866 0.005; morph_vol_dens_aee 1.17 0.01
morph_area_dens_aee 1.36 0.01; morph_vol_dens_conv_hull 0.961 0.006; morph_area_dens_conv_hull 1.03 0.01
morph_integ_int 1200 10; morph_moran_i 0.0397 0.0003; morph_geary_c 0.974 0.006
stat_mean 2.15; stat_var 3.05; stat_skew 1.08; stat_kurt -0.355; stat_median 1; stat_min 1; stat_p10 1; stat_p90 4
stat_max 6; stat_iqr 3; stat_range 5; stat_mad 1.55; stat_rmad 1.11; stat_medad 1.15; stat_cov 0.812; stat_qcod 0.6
stat_energy 567; stat_rms 2.77
ih_mean 2.15; ih_var 3.05; ih_skew 1.08; ih_kurt -0.355; ih_median 1; ih_min 1; ih_p10 1; ih_p90 4; ih_max 6; ih_mode 1
ih_iqr 3; ih_range 5; ih_mad 1.55; ih_rmad 1.11; ih_medad 1.15; ih_cov 0.812; ih_qcod 0.6; ih_entropy 1.27
ih_uniformity 0.512; ih_max_grad 8; ih_max_grad_g 3; ih_min_grad -50; ih_min_grad_g 1
ivh_v10 0.324; ivh_v90 0.0946; ivh_i10 5; ivh_i90 2; ivh_diff_v10_v90 0.23; ivh_diff_i10_i90 3
cm_joint_max 0.509; cm_joint_avg 2.15; cm_joint_var 3.13; cm_joint_entr 2.57; cm_diff_avg 1.38; cm_diff_var 3.21
cm_diff_entr 1.64; cm_sum_avg 4.3; cm_sum_var 7.41; cm_sum_entr 2.11; cm_energy 0.291; cm_contrast 5.12
cm_dissimilarity 1.38; cm_inv_diff 0.688; cm_inv_diff_norm 0.856; cm_inv_diff_mom 0.631; cm_inv_diff_mom_norm 0.902
cm_inv_var 0.0574; cm_corr 0.183; cm_auto_corr 5.19; cm_clust_tend 7.41; cm_clust_shade 17.4; cm_clust_prom 147
cm_info_corr1 -0.0288; cm_info_corr2 0.269
rlm_sre 0.729; rlm_lre 2.76; rlm_lgre 0.607; rlm_hgre 9.64; rlm_srlge 0.372; rlm_srhge 8.67; rlm_lrlge 2.16
rlm_lrhge 15.6; rlm_glnu 281; rlm_glnu_norm 0.43; rlm_rlnu 328; rlm_rlnu_norm 0.501; rlm_r_perc 0.68; rlm_gl_var 3.48
rlm_rl_var 0.598; rlm_rl_entr 2.62
szm_sze 0.255; szm_lze 550; szm_lgze 0.253; szm_hgze 15.6; szm_szlge 0.0256; szm_szhge 2.76; szm_lzlge 503
szm_lzhge 1490; szm_glnu 1.4; szm_glnu_norm 0.28; szm_zsnu 1; szm_zsnu_norm 0.2; szm_z_perc 0.0676; szm_gl_var 2.64
szm_zs_var 331; szm_zs_entr 2.32
dzm_sde 1; dzm_lde 1; dzm_lgze 0.253; dzm_hgze 15.6; dzm_sdlge 0.253; dzm_sdhge 15.6; dzm_ldlge 0.253; dzm_ldhge 15.6
dzm_glnu 1.4; dzm_glnu_norm 0.28; dzm_zdnu 5; dzm_zdnu_norm 1; dzm_z_perc 0.0676; dzm_gl_var 2.64; dzm_zd_var 0
dzm_zd_entr 1.92
ngt_coarseness 0.0296; ngt_contrast 0.584; ngt_busyness 6.54; ngt_complexity 13.5; ngt_strength 0.763
ngl_lde 0.045; ngl_hde 109; ngl_lgce 0.693; ngl_hgce 7.66; ngl_ldlge 0.00963; ngl_ldhge 0.736; ngl_hdlge 102
ngl_hdhge 235; ngl_glnu 37.9; ngl_glnu_norm 0.512
"""
TEXTURES = ["glcm", "glrlm", "glszm", "gldzm", "ngtdm", "ngldm"]
ALL = ["morphology", "statistics", "intensity_histogram", "intensity_volume_histogram", *TEXTURES]


@pytest.fixture
def mirp() -> Any:
    """MIRP itself. It brings 1.5 GB and so has an environment of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("mirp", reason="MIRP is not here: make test-radiomics")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of MIRP a table with two columns, of which the second is undefined for one voxel."""

    def computed(
        self: Radiomics, voxels: Any, inside: Any, *, modality: str, spacing_mm: tuple[float, ...]
    ) -> dict[str, Any]:
        own = voxels[inside]
        skew = float(stats.skew(own)) if own.size > 2 else float("nan")
        return {"image_voxel_size_x": spacing_mm[2], "stat_mean": own.mean(), "stat_skew": skew, "sample_name": "x"}

    monkeypatch.setattr(Radiomics, "_computed", computed)
    monkeypatch.setattr(radiomics, "version", {"mirp": "2.7.0", "scikit-image": "0.26.0"}.__getitem__)


def phantom(domain: ValueDomain = ValueDomain.HOUNSFIELD) -> Case:
    """The digital phantom, amid air, as a case."""
    wide = np.pad(PHANTOM, 3).astype(np.int16)
    grid = make_geometry(wide.shape, (2.0, 2.0, 2.0))
    mask = Mask("roi", (wide > 0).astype(np.uint8)[None], grid, (Segment("phantom"),))
    return Case("case", Volume(wide[None], grid, domain), (mask,))


def measured(case: Case, **options: Any) -> dict[str, float]:
    """Measures of the first mask by the last part of their name."""
    step = ADAPTER.validate_python({"kind": "radiomics", **options})
    return {name.rpartition("/")[2]: value for name, value in step(case).masks[0].measures.items()}


def consensus() -> dict[str, tuple[float, float]]:
    """Feature to reference value and tolerance; without a stated one, half of the last of three digits."""
    found = {}
    for entry in CONSENSUS.replace("\n", ";").split(";"):
        if entry.strip():
            name, value, *within = entry.split()
            half = 0.5 * 10.0 ** (np.floor(np.log10(abs(float(value)))) - 2) if float(value) else 1e-9
            found[name] = (float(value), float(within[0]) if within else half * (1 + 1e-9))
    return found


def test_the_digital_phantom_has_the_values_of_the_consensus(mirp: Any) -> None:
    found = measured(phantom(), families=ALL, bin_width=1.0, within=[1.0, 6.0])
    reference = consensus()
    assert len(reference) == 160
    for name, (value, within) in reference.items():
        (own,) = [column for column in found if _plain(column) == name]
        assert found[own] == pytest.approx(value, abs=within), name


def _plain(column: str) -> str:
    """The name of a feature without the settings that MIRP appends."""
    for end in ("_fbs_w1", "_3d_v_mrg", "_3d", "_a0", "_d1"):
        column = column.removesuffix(end)
    return column


def test_a_mask_has_what_mirp_by_hand_gives(mirp: Any, tmp_path: Path) -> None:
    """From files of the whole image and the mask, through MIRP's own import, to the precision of those files."""
    rng = np.random.default_rng(3)
    grid = make_geometry((14, 40, 44), (2.5, 0.8, 0.75))
    voxels = rng.integers(-200, 300, grid.shape).astype(np.int16)
    away = [(i - c) / r for i, c, r in zip(np.indices(grid.shape), (6, 20, 25), (4, 9, 11), strict=True)]
    inside = (sum(a * a for a in away) < 1).astype(np.uint8)
    case = Case(
        "case", Volume(voxels[None], grid, ValueDomain.HOUNSFIELD), (Mask("m", inside[None], grid, (Segment("s"),)),)
    )
    families = ["morphology", "local_intensity", "statistics", "glcm", "ngldm"]
    found = measured(case, families=families, bin_width=25.0, within=[-150.0, 250.0], prefix="native_")
    affine = np.diag([0.75, 0.8, 2.5, 1.0])
    for name, array in (("image", voxels.astype(np.float32)), ("mask", inside)):
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), tmp_path / f"{name}.nii.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (table,) = mirp.extract_features(
            image=str(tmp_path / "image.nii.gz"), mask=str(tmp_path / "mask.nii.gz"), image_modality="ct",
            base_feature_families=families, base_discretisation_method="fixed_bin_size",
            base_discretisation_bin_width=25.0, resegmentation_intensity_range=[-150.0, 250.0],
        )  # fmt: skip
    row = {
        f"native_{named(n)}": v
        for n, v in table.iloc[0].items()
        if n.startswith(("morph_", "loc_", "stat_", "cm_", "ngl_"))
    }
    assert inside.sum() > 1000
    assert row.keys() - found.keys() == {"native_morph_moran_i", "native_morph_geary_c"}
    assert len(found) > 75
    for name in found:
        assert found[name] == pytest.approx(row[name], rel=2e-5), name


def test_mirp_leaves_logging_and_warnings_of_the_process_alone(mirp: Any) -> None:
    before, level = [*logging.getLogger().handlers], logging.getLogger().level
    measured(phantom(ValueDomain.ARBITRARY), families=["statistics"])
    assert (logging.getLogger().handlers, logging.getLogger().level) == (before, level)


def test_what_mirp_refuses_costs_the_case_alone(mirp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**settings: Any) -> None:
        raise IndexError("PATIENT^NAME")

    monkeypatch.setattr(mirp, "extract_features", fails)
    with pytest.raises(CaseError, match=r"MIRP failed \(IndexError\)") as told:
        measured(phantom())
    assert "PATIENT" not in told.value.detail


def test_image_and_masks_stay_and_what_is_missing_has_a_reason(stand_in: None) -> None:
    case = make_case(make_geometry((9, 14, 16)))
    tumour = case.masks[0]
    empty = replace(tumour, name="other", voxels=np.zeros_like(tumour.voxels), measures={})
    case = replace(case, annotations=(*case.annotations, empty))
    done = ADAPTER.validate_python({"kind": "radiomics"})(case)
    assert done.volume.voxels is case.volume.voxels
    assert all(a.voxels is b.voxels for a, b in zip(done.masks, case.masks, strict=True))
    inside = case.volume.voxels[0][tumour.inside(tumour.segments[0])]
    measures = done.masks[0].measures
    assert measures["mass/stat_mean"] == pytest.approx(inside.mean())
    assert measures.keys() == {"kept", "mass/stat_mean", "mass/stat_skew", "node/stat_mean"}
    assert done.masks[1].measures == {}
    assert set(done.volume.notes) == {
        *case.volume.notes, "radiomics_undefined/tumour/node=1", "radiomics_empty/other/mass=1",
        "radiomics_empty/other/node=1",
    }  # fmt: skip


def test_a_mask_is_named_or_the_case_says_what_is_missing(stand_in: None) -> None:
    case = make_case(make_geometry((9, 14, 16)))
    parts = tuple(replace(case.masks[0], name=f"lesion/{n}", measures={}) for n in (1, 2))
    case = replace(case, annotations=(*case.annotations, *parts))
    done = ADAPTER.validate_python({"kind": "radiomics", "masks": ["lesion"]})(case)
    assert ["mass/stat_mean" in mask.measures for mask in done.masks] == [False, True, True]
    with pytest.raises(CaseError, match="expected one called 'liver'"):
        ADAPTER.validate_python({"kind": "radiomics", "masks": ["lesion", "liver"]})(case)
    with pytest.raises(CaseError, match="expected a prefix"):
        ADAPTER.validate_python({"kind": "radiomics"})(done)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda case: replace(case, volume=make_case(make_geometry((4, 5, 6)), channels=2).volume), "expected one"),
        (lambda case: make_case(make_geometry((9, 14, 16), shear=0.3)), "sheared grid"),
        (lambda case: replace(case, volume=make_case(make_geometry((9, 14, 17))).volume), "not the image's"),
    ],
)
def test_an_image_that_cannot_be_measured_is_refused(stand_in: None, change: Any, says: str) -> None:
    with pytest.raises(CaseError, match=says):
        ADAPTER.validate_python({"kind": "radiomics"})(change(make_case(make_geometry((4, 5, 6)))))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"families": ["glcm"]}, "glcm without bins"),
        ({"families": ["glcm"], "bins": 32, "bin_width": 25}, "expected one of them"),
        ({"bins": 32}, "expected families of bins"),
        ({"families": []}, "at least 1"),
        ({"families": ["wavelets"]}, "glcm"),
        ({"within": [400, -500]}, "a lower value before a higher one"),
        ({"prefix": "Native"}, "pattern"),
    ],
)
def test_a_block_that_means_nothing_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ADAPTER.validate_python({"kind": "radiomics", **options})


def test_without_mirp_a_plan_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(radiomics, "version", absent)
    with pytest.raises(MissingExtra, match=r"medical-dataset-builder\[radiomics\]"):
        _ = ADAPTER.validate_python({"kind": "radiomics"}).libraries


SPEC = """
name: features
license: CC0-1.0
sources: [{{kind: folder, url: "{tree}"}}]
cohort: {{labels: optional}}
labels:
  lesion: {{kind: mask, match: "{{parent}}/mask.nii.gz", values: {{1: tumor}}}}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
transforms:
  - {{kind: radiomics, prefix: native_}}
  - {{kind: intensity, clip: [20, 50]}}
  - {{kind: radiomics, families: [glcm], bins: 8}}
samples: {{kind: volumes, chunk: [8, 16, 16]}}
splits: {{ratios: {{train: 1.0}}}}
"""


def test_a_build_has_the_features_as_columns(stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured before and after a step; the second mask has one voxel, which has no skewness."""
    monkeypatch.setenv("BUILDER_KEY", "5a" * 32)
    given: dict[str, Any] = {}
    for number, voxels in enumerate((60, 1), start=1):
        folder = tmp_path / "tree" / f"p{number}"
        noise = np.random.default_rng(number).integers(0, 100, (8, 32, 32)).astype(float)
        made = synthetic.ct_series(folder / "image", patient_id=f"P{number}", study=f"s{number}", series=f"s{number}",
                                   frame=f"f{number}", voxels=noise)  # fmt: skip
        inside = np.zeros(made.geometry.shape, np.uint8)
        inside[3].flat[:voxels] = 1
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ made.geometry.affine[:, [2, 1, 0, 3]]
        nibabel.save(nibabel.Nifti1Image(inside.transpose(2, 1, 0), affine), folder / "mask.nii.gz")
        given[np.clip(noise, 20, 50).astype(np.int16).tobytes()] = noise, inside > 0
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(tree=tmp_path / "tree"))
    build(path, to=tmp_path / "dataset")
    dataset = builder.open_dataset(tmp_path / "dataset", uses="off")
    told = {}
    for sample, row in zip(dataset, dataset.table.to_pylist(), strict=True):
        noise, inside = given[sample["image"].tobytes()]
        native, clipped = (row[f"label.lesion.tumor.{prefix}stat_mean"] for prefix in ("native_", ""))
        assert native == pytest.approx(noise[inside].mean())
        assert clipped == pytest.approx(np.clip(noise, 20, 50)[inside].mean())
        told[int(inside.sum())] = {n for n in row["notes"] if n.startswith("radiomics")}
    assert told == {60: set(), 1: {"radiomics_undefined/lesion/tumor=1"}}
    manifest = dataset.manifest
    assert ["mirp==2.7.0", "scikit-image==0.26.0"] in manifest.lock["plugins"]
    assert manifest.spec["transforms"][2]["bins"] == 8
    facts = (tmp_path / "dataset" / "versions" / manifest.version / "catalog" / "facts.json").read_text()
    assert "radiomics: families glcm, bins 8" in facts
