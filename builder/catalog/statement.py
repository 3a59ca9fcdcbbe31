"""What only people can say of a dataset: the spec's blocks ``governance``, ``use_case`` and ``catalog``."""

from pydantic import BaseModel, ConfigDict, Field

Texts = tuple[str, ...]


class Governance(BaseModel):
    """Who answers for the dataset, and who may have it.

    Parameters
    ----------
    owner, responsible, contact
        Who owns the data, who answers for them, and how to reach that person or group.
    access
        How access is given, and to whom.
    costs
        What access costs.
    ethics_approval
        Body and reference of the approval, or why none was needed.
    maintenance
        Whether and how it will be kept up.
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
        What a model made from it does, in a sentence.
    clinical_question, users, setting
        The question answered, who would act on the answer, and where.
    intended_use, out_of_scope, limitations
        What it may be used for, what not, and what a user must know.
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
    """How the reference standard came about.

    Parameters
    ----------
    protocol
        What was annotated, and by which rules.
    rationale
        Why this reference standard was chosen.
    annotators
        Who annotated, with which qualification.
    tools
        Programs they used.
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
    """A table from study descriptions to RadLex Playbook procedures, supplied by the user.

    Parameters
    ----------
    url
        CSV, TSV, XLSX or Parquet.
    description, rpid, name
        Headings of the Study Description (0008,1030), of the playbook's identifier, and of the procedure's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    description: str = "description"
    rpid: str = "rpid"
    name: str = "name"


class Statement(BaseModel):
    """What the catalog says beside what the build found.

    Parameters
    ----------
    title
        The dataset's name for people.
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
    annotation
        How the reference standard came about.
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
    annotation: Annotation = Annotation()
    playbook: Playbook | None = None
    log_of_use: bool = True
