"""The ten kinds of action that the MIDI-B challenge scored, and a tally of them."""

from collections import Counter
from dataclasses import dataclass, field

KINDS = (
    "date_shifted", "patid_consistent", "pixels_hidden", "pixels_retained", "tag_retained",
    "text_notnull", "text_removed", "text_retained", "uid_changed", "uid_consistent",
)  # fmt: skip
"""As the challenge names them: https://doi.org/10.7937/cf2p-aw56"""

REMOVALS = ("date_shifted", "pixels_hidden", "text_removed", "uid_changed")
RETENTIONS = ("pixels_retained", "tag_retained", "text_notnull", "text_retained", "uid_consistent", "patid_consistent")


@dataclass
class Tally:
    """How many actions of each kind were asked for, how many were done, and where those that were not stand."""

    asked: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def count(self, kind: str, place: str, *, done: bool, times: int = 1, example: object = None) -> None:
        """Count an action; ``place`` names the attribute, column or file it belongs to, ``example`` what was found."""
        if kind not in KINDS:
            raise ValueError(f"{kind}: found no kind of action, expected one of {KINDS}")
        self.asked[kind] += times
        if done:
            self.done[kind] += times
        else:
            self.missed[kind, place] += times
            self.examples.setdefault((kind, place), set()).add(str(example)[:160])

    def share(self, kinds: tuple[str, ...]) -> float:
        """The percentage of the actions of some kinds that were done."""
        asked = sum(self.asked[k] for k in kinds)
        return 100.0 * sum(self.done[k] for k in kinds) / asked if asked else 100.0

    def text(self) -> str:
        """The table of the score, and the places that lost most."""
        lines = [f"{'kind':18}{'asked':>10}{'done':>10}{'percent':>10}"]
        for kind in KINDS:
            lines.append(f"{kind:18}{self.asked[kind]:>10,}{self.done[kind]:>10,}{self.share((kind,)):>10.3f}")
        for name, kinds in (("removals", REMOVALS), ("retentions", RETENTIONS), ("all", KINDS)):
            asked, done = (sum(counts[k] for k in kinds) for counts in (self.asked, self.done))
            lines.append(f"{name:18}{asked:>10,}{done:>10,}{self.share(kinds):>10.3f}")
        lines += [f"refused {n:>6,}  {reason}" for reason, n in self.refused.most_common()]
        for (kind, place), n in self.missed.most_common(40):
            lines.append(f"missed {n:>7,}  {kind:18} {place}  {sorted(self.examples[kind, place])[:3]}")
        return "\n".join(lines)
