"""Describe the reference standard by what people stated, or else by what the labels themselves record."""

from builder.catalog.facts import TODO, Facts


def who_stands_behind(facts: Facts) -> str | None:
    """Return the tiers of evidence and the named readers of each label, as its objects and the spec state them."""
    words = [
        f"{e.label}: {', '.join(str(t).replace('_', ' ') for t in e.tiers)}, "
        + (f"{e.readers} named reader{'s' if e.readers > 1 else ''}" if e.readers else "readers not named")
        for e in facts.evidence
        if e.tiers
    ]
    return "; ".join(words) or None


def annotators(facts: Facts) -> str | None:
    """Return who annotated. If only the labels say so, a TODO asks for the qualifications, which labels do not hold."""
    told = who_stands_behind(facts)
    if facts.statement.annotation.annotators or told is None:
        return facts.statement.annotation.annotators
    return f"{told}; {TODO}: state the annotators' qualifications (spec: catalog.annotation.annotators)"


def tools(facts: Facts) -> str | None:
    """Return the programs with which the labels were made."""
    said = facts.statement.annotation.tools
    return said or "; ".join(f"{e.label}: {', '.join(map(str, e.tools))}" for e in facts.evidence if e.tools) or None


def agreement(facts: Facts) -> str | None:
    """Return how well readers agree, or that each case has only one reader."""
    tiers = {t.value for e in facts.evidence for t in e.tiers}
    said = facts.statement.annotation.agreement or "; ".join(facts.agreed)
    return said or ("not measured: each case was read by one reader" if tiers == {"single_reader"} else None)
