"""Write the datasheet (Gebru 2021, doi:10.1145/3458723); questions that only a person can answer become TODOs."""

from builder.catalog.claim import missing_data
from builder.catalog.facts import Facts, stated
from builder.catalog.reference import tools, who_stands_behind
from builder.catalog.use_case import terms

Sections = dict[str, list[tuple[str, str]]]


def datasheet(facts: Facts) -> str:
    """Return the datasheet as Markdown."""
    lines = [f"# Datasheet: {facts.statement.title or facts.name} {facts.version}", ""]
    for title, questions in questions_of(facts).items():
        lines += [f"## {title}", ""]
        lines += [line for question, answer in questions for line in (f"**{question}** {answer}", "")]
    return "\n".join(lines)


def questions_of(facts: Facts) -> Sections:
    """Return the questions and answers of each section."""
    return {**_motivation(facts), **_composition(facts), **_making(facts), **_use(facts)}


def _motivation(facts: Facts) -> Sections:
    who = facts.governance
    answering = who.responsible or who.owner
    creators = ", ".join(facts.statement.creators) or stated(None, "the creators (spec: catalog.creators)")
    return {
        "Motivation": [
            ("For what purpose was it created?", stated(facts.use_case.task or facts.description, "the purpose")),
            ("Who created it?", creators),
            ("Who is responsible for it?", stated(answering, "who is responsible (spec: governance)")),
        ]
    }


def _composition(facts: Facts) -> Sections:
    instances = (
        f"{facts.samples} samples of {facts.cases} cases of {facts.persons} persons "
        f"({', '.join(facts.modalities) or 'modality not known'})."
    )
    parts = "; ".join(f"{name}: {meaning}" for name, meaning in facts.arrays.items())
    private = "; ".join(facts.deidentification) or stated(None, "how it was de-identified")
    left = ", ".join(map(str, facts.left)) or "nothing"
    chosen = f"Chosen: {'; '.join(facts.eligibility)}. " if facts.eligibility else ""
    people = [
        f"{name.replace('_', ' ')}: " + ", ".join(map(str, found))
        for name, found in facts.people.items()
    ]
    return {
        "Composition": [
            ("What are the instances, and how many?", instances),
            ("What does each consist of?", parts or "See the manifest."),
            ("Is it a sample of a larger set? Who was left out?", f"{chosen}Left out, with one reason each: {left}."),
            ("Does it identify subpopulations?", "; ".join(people) or "No."),
            ("Are there labels?", "; ".join(f"{n}: {k}" for n, k in facts.labels.items()) or "No."),
            ("Is information missing?", missing_data(facts)),
            ("Are there recommended splits?", facts.split_sentence or "None."),
            ("Are there errors or biases?", "; ".join(facts.findings) or "Nothing stood out; see the report."),
            ("Could persons be identified?", private),
        ]
    }


def _making(facts: Facts) -> Sections:
    sources = [
        f"{s.name}, {s.license or 'licence not stated'}{f', {s.series} series' if s.series else ''} ({s.role})"
        for s in facts.sources
    ]
    note = facts.statement.annotation
    ethics = stated(facts.governance.ethics_approval, "the ethics approval (spec: governance.ethics_approval)")
    labels = "; ".join(filter(None, [*facts.annotation, note.protocol, who_stands_behind(facts), tools(facts)]))
    return {
        "Collection": [
            ("Where did the data come from?", "; ".join(sources) or stated(None, "the sources")),
            ("Was there ethical review?", ethics),
        ],
        "Preprocessing and labelling": [
            ("What was done?", "; ".join(facts.preprocessing) or "Nothing."),
            ("How were samples taken?", facts.sampling or "Whole volumes."),
            ("How were labels made?", labels or "There are none."),
            ("Are the raw data kept?", "Where they came from; the dataset holds no DICOM object."),
        ],
    }


def _use(facts: Facts) -> Sections:
    who, card, under = facts.governance, facts.use_case, terms(facts)
    access = stated(who.access, "how access is given (spec: governance.access)")
    intended = "; ".join(card.intended_use) or stated(None, "the intended use (spec: use_case.intended_use)")
    outside = "; ".join(card.out_of_scope) or stated(None, "what is out of scope (spec: use_case.out_of_scope)")
    asked = ". ".join(s[:1].upper() + s[1:] for s in (*under["together"], *under["conflicts"]))
    refused = "; ".join(under["commercial_use_refused_by"])
    proven = bool(facts.sources) and not refused
    commercial = "Allowed by every licence." if proven else f"Not proven: {refused or 'no source'}."
    contact = stated(who.contact, "a contact (spec: governance.contact)")
    return {
        "Uses": [("What is it meant for?", intended), ("What should it not be used for?", outside)],
        "Distribution": [
            ("How is it licensed?", f"{facts.license}. {asked}{'.' if asked else ''}".strip()),
            ("May it be used commercially?", commercial),
            ("What is to be cited?", "; ".join(under["citations"]) or "Nothing."),
            ("How is access given?", access),
            ("What does it cost?", stated(who.costs, "the costs (spec: governance.costs)")),
        ],
        "Maintenance": [
            ("Who maintains it, and how are they reached?", contact),
            ("Will it be updated?", stated(who.maintenance, "how it is maintained (spec: governance.maintenance)")),
        ],
    }
