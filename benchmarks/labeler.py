"""The report labeler against people: precision, recall and F1 of each finding, and of each status.

    python benchmarks/labeler.py FOLDER

FOLDER holds ``openi_indiana_reports.csv`` (reports) and ``openi_gold_14labels.csv`` (NegBio's gold: present or not).
What people called negative and uncertain is in ``tests/labels/mentions.csv``. Prints Markdown.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

from builder.labels.reports import Status, label_report, load_lexicon

MENTIONS = Path(__file__).parent.parent / "tests" / "labels" / "mentions.csv"
Counts = tuple[int, int, int]


def read_verdicts(folder: Path) -> dict[int, dict[str, Status]]:
    """Report number to the labeler's verdict on each finding."""
    lexicon = load_lexicon()
    with (folder / "openi_indiana_reports.csv").open() as file:
        return {
            int(row["uid"]): dict(label_report(f"{row['findings']}\n\n{row['impression']}", lexicon))
            for row in csv.DictReader(file)
        }


def score_findings(folder: Path, verdicts: dict[int, dict[str, Status]]) -> dict[str, Counts]:
    """Finding to hits, false and missed positives; alternatives count as present, as the gold table has them."""
    counts: dict[str, Counter[str]] = {}
    with (folder / "openi_gold_14labels.csv").open() as file:
        for row in csv.DictReader(file):
            for finding, status in verdicts[int(row["filename"].removeprefix("CXR"))].items():
                column = "Pleural_Thickening" if finding == "pleural_thickening" else finding.capitalize()
                said, truth = status in (Status.POSITIVE, Status.ALTERNATIVE), row[column] == "1"
                kind = "hit" if said and truth else "false" if said else "missed" if truth else "right"
                counts.setdefault(finding, Counter())[kind] += 1
    return {finding: (c["hit"], c["false"], c["missed"]) for finding, c in counts.items()}


def score_statuses(verdicts: dict[int, dict[str, Status]], *, sample: str = "") -> dict[str, Counts]:
    """Status to hits, false and missed over the mentions people judged; alternatives are uncertain."""
    pairs: Counter[tuple[str, str]] = Counter()
    with MENTIONS.open() as file:
        for row in csv.DictReader(file):
            if row["sample"] in (sample or row["sample"]):
                said = verdicts[int(row["uid"])][row["finding"]]
                pairs[row["verdict"], "uncertain" if said is Status.ALTERNATIVE else said.value] += 1
    return {
        status: (
            pairs[status, status],
            sum(n for (truth, said), n in pairs.items() if said == status != truth),
            sum(n for (truth, said), n in pairs.items() if truth == status != said),
        )
        for status in ("positive", "negative", "uncertain")
    }


def f1(counts: Counts) -> float:
    """Harmonic mean of precision and recall."""
    hits, false, missed = counts
    return 2 * hits / (2 * hits + false + missed) if hits + false + missed else float("nan")


def line(name: str, counts: Counts) -> str:
    """One row of a table."""
    hits, false, missed = counts
    precision = hits / (hits + false) if hits + false else float("nan")
    recall = hits / (hits + missed) if hits + missed else float("nan")
    return f"| {name} | {hits + missed} | {precision:.3f} | {recall:.3f} | {f1(counts):.3f} |"


def main(folder: Path) -> None:
    """Print both tables."""
    verdicts = read_verdicts(folder)
    findings = score_findings(folder, verdicts)
    print(f"| finding ({len(verdicts)} reports) | present | precision | recall | F1 |\n|---|---|---|---|---|")
    for finding, counts in findings.items():
        print(line(finding.replace("_", " "), counts))
    used = [c for finding, c in findings.items() if finding != "hernia"]
    print(line("all but hernia (micro)", (sum(c[0] for c in used), sum(c[1] for c in used), sum(c[2] for c in used))))
    for sample in ("1", "2", "3"):
        print(f"\n| status, sample {sample} | mentions | precision | recall | F1 |\n|---|---|---|---|---|")
        for status, counts in score_statuses(verdicts, sample=sample).items():
            print(line(status, counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
