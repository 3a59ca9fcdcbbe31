"""Define what only people can state about a dataset: the spec blocks ``governance``, ``use_case`` and ``catalog``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Texts = tuple[str, ...]


UseCondition = Literal[
    "DUO_0000004",
    "DUO_0000006",
    "DUO_0000007",
    "DUO_0000015",
    "DUO_0000018",
    "DUO_0000019",
    "DUO_0000020",
    "DUO_0000021",
    "DUO_0000022",
    "DUO_0000024",
    "DUO_0000025",
    "DUO_0000026",
    "DUO_0000027",
    "DUO_0000028",
    "DUO_0000042",
    "DUO_0000044",
    "DUO_0000045",
    "DUO_0000046",
]
"""Terms of the Data Use Ontology; ``use_conditions.yaml`` has their names."""


class Governance(BaseModel):
    """Who is responsible for the dataset, and who may use it.

    Parameters
    ----------
    owner, responsible, contact
        Who owns the data, who is responsible for them, and how to reach that person or group.
    access
        How access is granted, and to whom.
    costs
        What access costs.
    ethics_approval
        Board and reference number of the approval, or why none was needed.
    maintenance
        Whether and how the dataset will be maintained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str | None = None
    responsible: str | None = None
    contact: str | None = None
    access: str | None = None
    costs: str | None = None
    ethics_approval: str | None = None
    maintenance: str | None = None


class UseCase(BaseModel):
    """What the dataset is for: the use-case card.

    Parameters
    ----------
    task
        What a model trained on the dataset does, in one sentence.
    clinical_question, users, setting
        The question that is answered, who would act on the answer, and where.
    intended_use, out_of_scope, limitations
        What it may be used for, what it must not be used for, and what a user must know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str | None = None
    clinical_question: str | None = None
    users: str | None = None
    setting: str | None = None
    intended_use: Texts = ()
    out_of_scope: Texts = ()
    limitations: Texts = ()


class Annotation(BaseModel):
    """How the reference standard was made.

    Parameters
    ----------
    protocol
        What was annotated, and by which rules.
    rationale
        Why this reference standard was chosen.
    annotators
        Who annotated, and with which qualifications.
    tools
        Programs that they used.
    agreement
        How well annotators agree with each other and with themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: str | None = None
    rationale: str | None = None
    annotators: str | None = None
    tools: str | None = None
    agreement: str | None = None


class Playbook(BaseModel):
    """A table, supplied by the user, that maps study descriptions to RadLex Playbook procedures.

    Parameters
    ----------
    url
        CSV, TSV, XLSX or Parquet.
    description, rpid, name
        Headings of the columns with the Study Description (0008,1030), the playbook identifier and the procedure name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    description: str = "description"
    rpid: str = "rpid"
    name: str = "name"


class Agent(BaseModel):
    """Somebody to turn to.

    Parameters
    ----------
    name, homepage, email
        The name, the address of a page, and an e-mail address.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    homepage: str = Field(pattern=r"^https?://\S+$")
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")


class DataHolder(Agent):
    """The health data holder.

    Parameters
    ----------
    type, note, trusted
        Its type (address of a term), what it does, and whether it is a trusted data holder.
    """

    type: str = Field(pattern=r"^https?://\S+$")
    note: str
    trusted: bool


class HealthCatalogue(BaseModel):
    """What a national catalogue of health data asks (HealthDCAT-AP); terms are addresses of the vocabularies it names.

    Parameters
    ----------
    access
        Who may have the data.
    contact, holder, body
        Whom to ask, who holds the data, and the health data access body.
    place
        Where the persons are, such as a country of the EU's authority table.
    purposes, categories, themes, kind
        For what the data may be processed (DPV), their health categories and themes, and the type of the dataset.
    sample
        Address of a sample of the data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    access: Literal["public", "restricted", "non_public"]
    contact: Agent
    holder: DataHolder
    body: Agent
    place: str = Field(pattern=r"^https?://\S+$")
    purposes: Texts = Field(min_length=1)
    categories: Texts = Field(min_length=1)
    themes: Texts = Field(min_length=1)
    kind: str = Field(pattern=r"^https?://\S+$")
    sample: str = Field(pattern=r"^https?://\S+$")


class Statement(BaseModel):
    """What the catalog says in addition to what the build found.

    Parameters
    ----------
    title
        The dataset's title for readers.
    creators, publisher, published
        Who made it, who publishes it, and when (ISO 8601 date).
    identifier
        Its DOI, without ``https://doi.org/``.
    page
        Address of its public page.
    citation
        How to cite it.
    keywords
        Words to find it by.
    context
        Why and where the images were made, such as screening, emergency care or a trial.
    years
        How the time of acquisition is told: as ``acquired`` states it (``stated``), as the years of the first and last
        study by site and split (``ranges``), or not at all (``withheld``).
    acquired
        When the images were made, in a person's words.
    associated_data
        Data of the persons that exist beside the columns of the dataset, such as laboratory values or genomes.
    pathologies
        Labels that mean that a case is not normal, named as in the report.
    annotation
        How the reference standard was made.
    playbook
        Table of RadLex Playbook procedures.
    collection, collected_by
        How the images were collected, and which group or institution collected them.
    original_purpose
        Why the images and the clinical data were collected at first, such as care or a trial.
    assumptions
        What is taken for granted about what the images and labels measure.
    mitigation
        What was done against biases that were found.
    social_impact
        Whom models made from the dataset may help or harm, and what was done about it.
    synthetic
        Whether images or labels were generated rather than acquired: all, or a part of them.
    legal_basis
        On which ground of law the personal data are processed.
    retention
        How long the dataset and its private key are kept, and what happens then.
    quality_management
        How the quality of the data is managed: how mature the processes are, who reviews and audits them.
    use_conditions
        Terms of the Data Use Ontology, ``DUO_0000042`` and so on, that say for what the dataset may be used.
    health_catalogue
        What an entry in a catalogue of the European Health Data Space needs.
    log_of_use
        Whether readers keep a log of use beside the dataset (``docs/catalog.md``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str | None = None
    creators: Texts = ()
    publisher: str | None = None
    published: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    identifier: str | None = Field(default=None, pattern=r"^10\.\d{4,9}/\S+$")
    page: str | None = Field(default=None, pattern=r"^https?://\S+$")
    citation: str | None = None
    keywords: Texts = ()
    context: str | None = None
    years: Literal["stated", "ranges", "withheld"] = "stated"
    acquired: str | None = None
    associated_data: str | None = None
    pathologies: Texts = ()
    annotation: Annotation = Annotation()
    playbook: Playbook | None = None
    collection: str | None = None
    collected_by: str | None = None
    original_purpose: str | None = None
    assumptions: str | None = None
    mitigation: str | None = None
    social_impact: str | None = None
    synthetic: bool | None = None
    legal_basis: str | None = None
    retention: str | None = None
    quality_management: str | None = None
    use_conditions: tuple[UseCondition, ...] = ()
    health_catalogue: HealthCatalogue | None = None
    log_of_use: bool = True
