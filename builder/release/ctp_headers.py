"""Read a script of CTP's DicomAnonymizer: options, retained columns and removals of a spec, and what has no equivalent.

A script is XML (RSNA CTP, "The CTP DICOM Anonymizer"): parameters ``<p>``, rules of elements ``<e>``, groups to keep
``<k>`` and bulk removals ``<r>``, each with ``en="T"`` if it counts. A rule's text calls functions such as ``@keep()``.
This program keeps what its own list names and the options retain, so a rule may only take more away or turn on an
option: whatever else it asks for is told.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final
from xml.etree import ElementTree

from pydicom.datadict import DicomDictionary

from builder.deid.allowed import Form, forms
from builder.deid.profile import METHOD_CODES, Option, Profile, table

MOST_BYTES: Final = 4_000_000


class Wish(Enum):
    """What a rule of a script does with its element."""

    KEEP = auto()
    REMOVE = auto()
    UID = auto()
    DATE = auto()
    OTHER = auto()


@dataclass(frozen=True)
class Rule:
    """A rule of an element that counts: its tag, what it does, and the functions that it calls."""

    tag: int
    wish: Wish
    called: str

    @property
    def name(self) -> str:
        """The keyword of the element, or its tag where the dictionary has none."""
        return DicomDictionary[self.tag][4] if self.tag in DicomDictionary else f"{self.tag:08X}"


@dataclass(frozen=True)
class Script:
    """What counts in a script.

    Parameters
    ----------
    groups
        Groups to keep, as written (``0018``, ``safeprivateelements``).
    bulk
        Bulk removals (``privategroups``, ``unspecifiedelements``, ``curves``, ``overlays``).
    claimed
        Codes of methods (CID 7050) that the script writes into objects.
    unread
        Rules of elements that are no public element of eight hexadecimal digits, as written.
    """

    rules: tuple[Rule, ...]
    groups: frozenset[str]
    bulk: frozenset[str]
    claimed: tuple[str, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """What a spec says in place of a script, and what of the script has no equivalent or is done in another way."""

    options: tuple[str, ...]
    retain: tuple[str, ...]
    remove: tuple[str, ...]
    rules: int
    left_out: tuple[str, ...] = field(default=())


_STATED: Final = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303, 0x00080005})
"""Every released object states these itself."""
_METHOD_CODES: Final = 0x00120064
_COLUMNS: Final = {0x00100040: "sex", 0x00101010: "age_years"}
_CALL = re.compile(r"@([A-Za-z]+)\s*\(")
_WISHES: Final = {
    "keep": Wish.KEEP, "process": Wish.KEEP, "remove": Wish.REMOVE, "empty": Wish.REMOVE, "blank": Wish.REMOVE,
    "hashuid": Wish.UID, "incrementdate": Wish.DATE, "hashdate": Wish.DATE,
}  # fmt: skip
_MOVED: Final = frozenset({Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES})
_WHEN_KEPT: Final = frozenset(Option) - _MOVED - {Option.RETAIN_SAFE_PRIVATE}
_LEFT: Final = {"curves": "curves", "overlays": "overlays", "privategroups": "private elements beyond the safe list"}


def import_header_script(data: bytes) -> Imported:
    """Turn a script into terms of a spec.

    Raises
    ------
    ValueError
        If this is no script. The message says what was found, and quotes no value.
    """
    script = parse_script(data)
    options, contradiction = _options_of(script)
    found = forms(Profile(options))
    kept = {rule.tag for rule in script.rules if rule.wish is Wish.KEEP}
    retain = tuple(sorted({column for tag, column in _COLUMNS.items() if tag in kept and tag in found}))
    rules = [rule for rule in script.rules if rule.tag not in _STATED]
    remove = {rule.name for rule in rules if _is_removed(rule, found)}
    told = [*contradiction, *_claims(script, options), *_bulk(script), *_per_rule(rules, found, remove)]
    told += [f"{name}: found no public element, expected eight hexadecimal digits" for name in script.unread]
    names = tuple(sorted(str(option) for option in options))
    return Imported(names, retain, tuple(sorted(remove)), len(script.rules), tuple(told))


def parse_script(data: bytes) -> Script:
    """Read what counts in a script. Raises ValueError."""
    if len(data) > MOST_BYTES or b"\0" in data or re.search(rb"<!(DOCTYPE|ENTITY)", data, re.IGNORECASE):
        raise ValueError("found XML that is too large, not UTF-8 or declares entities")
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", data.decode("utf-8-sig")))
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError, RecursionError):
        raise ValueError("found a file that is no XML") from None
    if root.tag != "script":
        raise ValueError("found XML of another kind")
    rules, unread, claimed = [], [], ""
    counted = {kind: [e for e in root if e.tag == kind and e.get("en", "T").upper() == "T"] for kind in "ekr"}
    for element in counted["e"]:
        name, said = (element.get("t") or "").strip(), "".join(element.itertext()).strip()
        tag = int(name, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else 0
        if not tag or tag >> 16 & 1:
            unread.append(name or "a rule without an element")
            continue
        if tag == _METHOD_CODES:
            claimed = said
        rules.append(Rule(tag, *_wish(said)))
    groups, bulk = (frozenset((e.get("t") or "").strip().lower() for e in counted[kind]) for kind in "kr")
    return Script(tuple(rules), groups, bulk, tuple(re.findall(r"\b1131\d\d\b", claimed)), tuple(unread))


def _wish(said: str) -> tuple[Wish, str]:
    """Return what a rule's text does, and the functions that it calls; an empty text removes."""
    text = re.sub(r"^@always\s*\(\s*\)", "", said).strip()
    calls = [name.lower() for name in _CALL.findall(text)]
    if not text:
        return Wish.REMOVE, ""
    if not calls:
        return Wish.OTHER, "a constant"
    alone = len(calls) == 1 and re.fullmatch(r"@[A-Za-z]+\s*\([^{}]*\)", text)
    return (_WISHES.get(calls[0], Wish.OTHER) if alone else Wish.OTHER), ", ".join(
        f"@{c}" for c in dict.fromkeys(calls)
    )


def _options_of(script: Script) -> tuple[frozenset[Option], list[str]]:
    """Return the options that let what the script keeps pass, and a line where two of them contradict each other."""
    options: set[Option] = set()
    if "safeprivateelements" in script.groups:
        options.add(Option.RETAIN_SAFE_PRIVATE)
    true, moved = False, False
    for rule in script.rules:
        row = table().get(rule.tag)
        if row is None:
            continue
        if rule.wish is Wish.KEEP:
            options |= row.options.keys() & _WHEN_KEPT
            # a time of day stays where dates move, so that it does not tell which of the two is meant
            true = true or (Option.RETAIN_FULL_DATES in row.options and _vr(rule.tag) in ("DA", "DT"))
        elif rule.wish is Wish.DATE:
            moved = moved or Option.RETAIN_MODIFIED_DATES in row.options
    if moved or true:
        options.add(Option.RETAIN_MODIFIED_DATES if moved else Option.RETAIN_FULL_DATES)
    lines = ["dates: found some kept and some moved, expected one of both; here all move"] if moved and true else []
    return frozenset(options), lines


def _vr(tag: int) -> str:
    return DicomDictionary[tag][0] if tag in DicomDictionary else ""


Forms = Mapping[int, tuple[Form, str]]


def _stays(tag: int, found: Forms) -> bool:
    """Return whether something of the element's value is left here."""
    return tag in found and found[tag][0] not in (Form.EMPTY, Form.DUMMY)


def _is_removed(rule: Rule, found: Forms) -> bool:
    """Return whether the script takes out, or replaces, what would stay here; UIDs are replaced in any case."""
    harder = rule.wish is Wish.REMOVE or (rule.wish is Wish.OTHER and rule.called.split(",")[0] in _REPLACING)
    return harder and _stays(rule.tag, found) and _vr(rule.tag) != "UI"


_REPLACING: Final = frozenset(
    {"a constant", "@param", "@hash", "@hashname", "@hashptid", "@integer", "@initials", "@encrypt", "@date", "@time"}
)
"""What gives another value whatever the element held: here the element goes."""


def _claims(script: Script, options: frozenset[Option]) -> Iterator[str]:
    codes = {code: option for option, code in METHOD_CODES.items()}
    for code in script.claimed:
        if code in codes and codes[code] not in options:
            yield f"{code}: the script states it, and keeps nothing that {codes[code]} lets out; not turned on"


def _bulk(script: Script) -> Iterator[str]:
    """Tell what a script keeps or removes without naming it."""
    if "unspecifiedelements" in script.bulk:
        groups = ", ".join(sorted(script.groups - {"safeprivateelements"})) or "none"
        yield (
            f"unspecifiedelements: the script removes what it does not name (groups kept: {groups}); here the "
            "program's own list of attributes decides, which holds some that the script does not name"
        )
    else:
        yield "elements that the script does not name: it keeps them; here only those of the program's list stay"
    for name, what in _LEFT.items():
        if name not in script.bulk:
            yield f"{name}: the script does not remove them; here {what} go"


def _per_rule(rules: Iterable[Rule], found: Forms, remove: set[str]) -> Iterator[str]:
    """Tell of each rule that is done otherwise here, one line for all elements of which the same is true."""
    told: dict[str, list[str]] = {}
    for rule in rules:
        said = _difference(rule, found, removed=rule.name in remove)
        if said:
            told.setdefault(said, []).append(rule.name)
    for said, names in told.items():
        yield f"{', '.join(sorted(names))}: {said}"


_CLEANED: Final = frozenset({Form.WORDS, Form.LABEL, Form.PROSE, Form.CODE, Form.CODE_VALUE, Form.SEQUENCE})


def _difference(rule: Rule, found: Forms, *, removed: bool) -> str:
    """Return how an element is treated otherwise than its rule asks; "" if it is treated so."""
    form = found[rule.tag][0] if rule.tag in found else None
    if rule.tag in (0x00100010, 0x00100020):
        return "" if rule.wish is Wish.REMOVE else f"{rule.called or 'kept'}: here the pseudonym"
    if rule.wish is Wish.REMOVE:
        return "removed by the script, a new UID here" if form in (Form.UID, Form.KEPT_UID) else ""
    if rule.wish is Wish.KEEP:
        if not _stays(rule.tag, found):
            return "kept by the script, taken out here: no option keeps it"
        if form is Form.UID:
            return "kept by the script, replaced here: no option keeps it"
        return "kept by the script, cleaned here" if form in _CLEANED else ""
    if rule.wish is Wish.UID:
        if not _stays(rule.tag, found):
            return "a new UID by the script, taken out here"
        return "a new UID by the script, kept here with the others" if form is Form.KEPT_UID else ""
    if rule.wish is Wish.DATE:
        moves = form in (Form.DATE, Form.DATETIME)
        return "moved by the script; here by days of each study's own, and far dates go" if moves else (
            "moved by the script, taken out here"
        )  # fmt: skip
    if removed or not _stays(rule.tag, found):
        return f"{rule.called}: taken out or replaced by a constant here"
    return f"{rule.called}: has no equivalent; it stays here as the program's list says"
