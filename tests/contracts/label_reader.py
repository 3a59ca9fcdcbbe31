"""What every label reader must keep; a reader's test subclasses ``LabelReaderContract`` and fills in four things."""

import pickle
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from builder.errors import CaseError, Reason
from builder.labels import LABELS, AnyLabel
from builder.labels.label import Label
from builder.model.case import EVIDENCE_TIERS, Boxes, Landmarks, Mask
from builder.model.linking import ImageRow
from builder.model.tables import INSTANCES
from builder.protocols import ImageFacts, LabelObject, LabelReader

IDENTIFIERS = ("1.2.826.0.1.42", "DOE^JANE", "/archive/doe")
"""Values a subclass plants in its objects (UID, name, path); none may show in an error or a measure."""


class LabelReaderContract:
    """Subclass it, set ``options`` and give the two fixtures.

    ``options``
        The spec's block of a working reader, with its ``kind``.
    ``rubbish``
        Contents no reader may accept; narrow it only where one of them is a proper object of the kind.
    ``image``
        Fixture: the ImageFacts the objects belong to.
    ``objects``
        Fixture: objects that give at least one annotation with ``options``.
    """

    options: ClassVar[dict[str, Any]]
    rubbish: ClassVar[tuple[Any, ...]] = (b"", b"\0" * 64, b"<a>", b"{", b"\xff\xfe\x00", "text", None, 7)

    @pytest.fixture
    def image(self) -> ImageFacts:
        raise NotImplementedError

    @pytest.fixture
    def objects(self, image: ImageFacts) -> Sequence[LabelObject]:
        raise NotImplementedError

    @pytest.fixture
    def reader(self) -> Any:
        return TypeAdapter(AnyLabel).validate_python(self.options)

    def test_the_table_names_it_by_its_kind(self, reader: Any) -> None:
        assert LABELS[self.options["kind"]] is type(reader)
        assert isinstance(reader, LabelReader)
        assert isinstance(reader.VERSION, int)

    def test_options_are_frozen_closed_and_survive_json(self, reader: BaseModel) -> None:
        with pytest.raises(ValidationError):
            reader.kind = "other"  # type: ignore[attr-defined]
        with pytest.raises(ValidationError):
            type(reader).model_validate({**self.options, "no_such_option": 1})
        assert type(reader).model_validate_json(reader.model_dump_json()) == reader
        assert pickle.loads(pickle.dumps(reader)) == reader  # noqa: S301 (our own bytes)

    def test_reading_twice_gives_the_same_bytes(self, reader: Any, objects: Any, image: ImageFacts) -> None:
        assert [_frozen(a) for a in reader.read("label", objects, image)] == [
            _frozen(a) for a in reader.read("label", objects, image)
        ]

    def test_annotations_carry_the_name_and_an_evidence_tier(self, reader: Any, objects: Any, image: Any) -> None:
        found = reader.read("label", objects, image)
        assert found
        assert len({a.name for a in found}) == len(found)
        for annotation in found:
            assert annotation.name == "label" or annotation.name.startswith("label/")
            assert annotation.evidence.tier in EVIDENCE_TIERS

    def test_masks_lie_on_the_grid_of_the_image(self, reader: Any, objects: Any, image: ImageFacts) -> None:
        for annotation in reader.read("label", objects, image):
            if isinstance(annotation, Mask):
                assert annotation.geometry.same_grid(image.geometry)
                assert annotation.voxels.dtype in (np.uint8, np.uint16)
                assert {s.channel for s in annotation.segments} <= set(range(len(annotation.voxels)))
                assert all(np.isfinite(v) for v in annotation.measures.values())
            if isinstance(annotation, Boxes):
                assert annotation.corners_mm.shape == (len(annotation.classes), 8, 3)
            if isinstance(annotation, Landmarks):
                assert annotation.points_mm.shape == (len(annotation.classes), 3)

    def test_no_object_is_a_case_without_this_label(self, reader: Any, image: ImageFacts) -> None:
        with pytest.raises(CaseError) as caught:
            reader.read("label", [], image)
        assert caught.value.reason in (Reason.LABEL_MISSING, Reason.CLINICAL_MISSING)

    def test_rubbish_is_refused_as_a_case_error_without_identifiers(self, reader: Any, image: ImageFacts) -> None:
        for content in self.rubbish:
            with pytest.raises(CaseError) as caught:
                reader.read("label", [LabelObject(content, "/archive/doe/DOE^JANE.dcm")], image)
            assert caught.value.reason.value.startswith("label_"), content
            assert not any(secret in str(caught.value) for secret in IDENTIFIERS)

    def test_a_file_of_many_images_tells_which_before_it_is_cut(self, reader: Any) -> None:
        assert isinstance(reader, LabelReader)
        many = type(reader).mentions is not Label.mentions
        assert many == (type(reader).cut is not Label.cut)
        elsewhere = ImageRow("1.2.826.0.1.42")
        files = [content for content in self.rubbish if isinstance(content, bytes)]
        for content in files if many else ():
            said = _said(reader.mentions, content, elsewhere)
            assert said is False or str(said).startswith(Reason.LABEL_UNREADABLE), content
            assert not any(secret in str(said) for secret in IDENTIFIERS)

    def test_selecting_from_nothing_selects_nothing(self, reader: Any) -> None:
        assert reader.select(ImageRow("1.2.3"), INSTANCES.empty_table()).rows == ()


def _said(mentions: Any, content: bytes, image: Any) -> bool | CaseError:
    try:
        return bool(mentions(content)(image))
    except CaseError as error:
        return error


def _frozen(annotation: Any) -> tuple[Any, ...]:
    """An annotation as a value that compares by content."""
    parts = []
    for name in annotation.__dataclass_fields__:
        value = getattr(annotation, name)
        if isinstance(value, np.ndarray):
            value = (value.dtype.str, value.shape, value.tobytes())
        elif hasattr(value, "affine"):
            value = (value.shape, value.affine.tobytes())
        elif isinstance(value, dict):
            value = tuple(value.items())
        parts.append((name, value))
    return tuple(parts)
