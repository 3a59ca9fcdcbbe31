"""Write the datasheet of a dataset; questions that only a person can answer become TODOs."""

from builder.catalog.answers import Answers, questions
from builder.catalog.facts import Facts

Sections = dict[str, list[tuple[str, str]]]


def datasheet(facts: Facts) -> str:
    """Return the datasheet as Markdown."""
    lines = [f"# Datasheet: {facts.statement.title or facts.name} {facts.version}", ""]
    for title, asked in questions_of(facts).items():
        lines += [f"## {title}", ""]
        lines += [line for question, answer in asked for line in (f"**{question}** {answer}", "")]
    return "\n".join(lines)


def questions_of(facts: Facts) -> Sections:
    """Return the questions and answers of each section."""
    answer = Answers(facts)
    return {
        section: [(question, answer(template)) for question, template in asked.items()]
        for section, asked in questions("datasheet.yaml").items()
    }
