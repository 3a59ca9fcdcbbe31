"""Define what only people can state about a dataset: the spec blocks ``governance``, ``use_case`` and ``catalog``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Texts = tuple[str, ...]


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
    log_of_use: bool = True
