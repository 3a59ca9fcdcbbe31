"""Tell for what a dataset may be used, in terms of the Data Use Ontology (DUO), and as an offer in ODRL."""

from collections.abc import Sequence

from builder.catalog.answers import questions
from builder.model.canonical import Json


def usage_info(conditions: Sequence[str]) -> list[Json]:
    """Return each condition as a defined term; permissions with a limit of purpose also as an ODRL offer.

    The offer takes the form of Croissant 1.1, "Fine-Grained Control with ODRL", and has a left operand, which the ODRL
    Information Model 2.2 asks of every constraint.
    """
    known = questions("use_conditions.yaml")
    terms: list[Json] = [
        {
            "@type": "sc:DefinedTerm",
            "name": known[code]["name"],
            "termCode": code,
            "url": "http://purl.obolibrary.org/obo/" + code,
        }
        for code in conditions
    ]
    allowed = [code for code in conditions if known[code]["role"] == "permission"]
    limits = [code for code in conditions if known[code]["role"] == "purpose"]
    if not (allowed and limits):
        return terms
    permissions = [
        {
            "@type": "odrl:Permission",
            "odrl:action": {"@id": _short(code), "name": known[code]["name"]},
            "odrl:constraint": [
                {
                    "@type": "odrl:Constraint",
                    "name": known[limit]["name"],
                    "odrl:leftOperand": {"@id": "odrl:purpose"},
                    "odrl:operator": {"@id": "odrl:eq"},
                    "odrl:rightOperand": {"@id": _short(limit)},
                }
                for limit in limits
            ],
        }
        for code in allowed
    ]
    offer: Json = {
        "@type": ["sc:CreativeWork", "odrl:Offer"],
        "name": "DUO Usage Policy",
        "odrl:permission": permissions,
    }
    return [*terms, offer]


def _short(code: str) -> str:
    return "duo:" + code.removeprefix("DUO_")
