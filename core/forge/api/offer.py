"""What a plugin says of itself at planning time: offers of stages, and extensions beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from forge.api.stage import Stage
    from forge.errors import Problem
    from forge.job.decisions import Decision
    from forge.job.job import Job
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What one value of a job needs to be installed, beside what its offer needs for every job.

    Attributes:
        key: The key, as in ``"train.optim"``. Where it holds several values each counts; of an array of tables, each
            one's key.
        values: The values, or patterns as in ``"galore_*"``; none for a switch that is on.
        requires: PEP 508 requirements. They may be none where only ``accelerators`` is asked.
        instead: Requirements one of which does as well.
        tasks: The models' tasks that it is about; empty for all.
        accelerators: Kinds of accelerator of which it needs one that torch can use; empty if it needs none.
        install: What to give to ``pip install`` where the requirements are not it.

    Example:
        >>> Package(key="train.optim", values=("galore_*",), requires=("galore-torch",)).wish
        '[train] optim = "galore_*"'
    """

    key: str
    values: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    tasks: frozenset[str] = frozenset()
    accelerators: frozenset[str] = frozenset()
    install: str | None = None

    @property
    def wish(self) -> str:
        """The key with its values, as a job writes it."""
        table, _, key = self.key.rpartition(".")
        return f"[{table}] {key} = " + (", ".join(f'"{value}"' for value in self.values) or "true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one implementation of one stage can do, told in strings.

    Attributes:
        stage: The stage that it serves.
        impl: ``"package.module:function"``, imported only if chosen, and only in the worker. The function takes the
            arguments of the hook ``forge_<stage>`` that it names.
        serves: What a job asks for by name: a method, an adapter's type, a format, from
            :data:`~forge.api.stage.NAMES`. For stages that a job does not name so, empty.
        supports: What it can do beside, from :data:`~forge.api.stage.ABILITIES`. A job's needs of the stage must all be
            among ``serves`` and ``supports``.
        requires_dist: PEP 508 requirements, checked against the installed distributions without importing them.
        packages: What single values of a job need beside. Whatever of it is missing refuses the plan, all at once and
            with one line that installs it. What is to make forge take another plugin belongs into ``probe``.
        platforms: Values of ``sys.platform`` it runs on; empty for any.
        accelerators: Kinds of accelerator of which it needs one (``"cuda"``, ``"rocm"``, ``"mps"``, ``"xpu"``); empty
            if it needs none.
        provides: Traits of what it returns, for later stages (``"hf-model"``).
        removes: Traits of earlier stages that what it returns does not have any more: an adapter of another kind
            removes ``"hf-model"``, and nothing that depends on it follows.
        depends: Traits that an earlier stage must provide.
        conflicts: Traits that no earlier stage may provide.
        asks: For a stage ``train``: words that it asks of other stages' offers, as the layout of the rows
            (``{Stage.COLLATE: {"pairs"}}``; without it ``"tokens"``) or a head of the model.
        preload: Modules that the worker imports before everything else.
        before: Modules that ``preload`` must come before: a worker that has loaded one of them earlier fails.
        patches: Modules that change other libraries for the whole process once they are imported. A worker whose plan
            does not have this offer fails if one of them is loaded.
        environment: Variables set before the worker starts.
        sheds: Prefixes of variables that no worker takes over from the user's environment, whatever is chosen.
        priority: 0 for what works everywhere, 50 for what is faster where it can serve, 100 for what is made for just
            this; the higher is tried first, ties go to forge's own, then by the plugin's name. An offer of somebody
            else's that names neither ``platforms`` nor ``accelerators`` comes after forge's own, whatever it is.
        backend: The name by which ``[use] backend`` asks for it.
        options: ``"package.module:name"`` of a pydantic model for the keys that it adds to its stage's own table, or of
            a function that takes the method, type or format and returns one.
        config: The same for the plugin's own table ``[plugins.<name>]``; a function takes no argument.
        probe: A light, pure function of machine, job and model facts that returns a reason against the offer, or None.
        check: A light, pure function of the job that yields a :class:`Problem` for each contradiction that no single
            key shows; ``Problem.where`` names the key. They are mistakes of the job.
        decide: A light, pure function of machine, job and model facts that yields a :class:`Decision` for each value
            that the job leaves open. Decisions stand in the plan with their reasons.
        preflight: ``"package.module:function"`` of ``(job, run, data)`` that yields :class:`Finding` objects in the
            worker after collating and before the model is loaded; an error stops the run.
        resumes: For exports: whether the implementation goes on from what an earlier try left in ``out``. Without it,
            each try begins with an empty folder.
        upload: For exports: ``"package.module:function"`` of ``(folder, export)`` that uploads a finished export as
            its table says and returns the address. It is called once the export is in its place, and again, alone,
            after an upload that failed.
        estimate: ``"package.module:function"`` of ``(machine, job, facts, *, longest=None)`` that returns an
            :class:`~forge.api.Estimate` of the memory of a training, or None; ``longest`` is the longest row in tokens,
            if known. The first chosen offer that has one is asked, in running order: what loads the model knows its
            kernels. It is imported at planning time, so it must be light, and again in the worker of a dry run.
        fit: ``"package.module:function"`` of ``(machine, job, facts, *, asked, named, rows=None, failed=False)`` that
            yields a :class:`Decision` for each value that the job leaves open and that memory decides, or a
            :class:`Problem` where what the job names leaves no way: a step that ``[launch] processes`` cannot share.
            ``job`` has all
            other decisions in it, ``asked`` is the job as it was written, ``named`` the keys that the user wrote. The
            first chosen offer that has one is asked, once the others have decided; in the worker again with ``rows``,
            the summary of the rows; and with ``failed`` by a trainer that ran out of memory with ``job`` before the
            first step: then it yields what takes less, or nothing.
        pace: ``"package.module:function"`` of ``(machine, job, facts)`` that returns a :class:`~forge.api.Pace`, or
            None. Where several offers could serve and each says how long the training takes with it, the one with
            which it ends first is taken. It is imported at planning time, so it must be light.
        trial: For a stage ``load`` with a ``backend``: ``"package.module:function"`` of ``(folder, machine)`` that
            writes ``job.toml`` there, with a model and rows of no meaning: what ``forge doctor --measure`` trains. It
            is imported in the process of the command, so it must be light.
        untried: By value of ``sys.platform``: what nobody has tried of it there, each as a sentence that says what to
            do and what should come out. ``forge doctor`` prints it where the offer works.

    A model of ``options`` or ``config`` that derives from :class:`forge.api.Table` may say more about keys and words
    that it does not know (``forge_hint``, ``forge_word``), and which keys contradict each other (``contradictions``).

    Example:
        >>> from forge.api import Stage
        >>> def cannot(machine, job, facts):
        ...     return None if machine.accelerators else "needs a GPU"
        >>> offer = Offer(
        ...     stage=Stage.EXPORT,
        ...     impl="forge_zip.export:export",
        ...     serves=frozenset({"zip/weights"}),
        ...     supports=frozenset({"push"}),
        ...     requires_dist=("zipp>=3",),
        ...     probe=cannot,
        ... )
        >>> sorted(offer.words)
        ['push', 'zip/weights']
    """

    stage: Stage
    impl: str
    serves: frozenset[str] = frozenset()
    supports: frozenset[str] = frozenset()
    requires_dist: tuple[str, ...] = ()
    packages: tuple[Package, ...] = ()
    platforms: frozenset[str] = frozenset()
    accelerators: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    removes: frozenset[str] = frozenset()
    depends: frozenset[str] = frozenset()
    conflicts: frozenset[str] = frozenset()
    asks: Mapping[Stage, frozenset[str]] = field(default_factory=dict)
    preload: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    patches: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict)
    sheds: tuple[str, ...] = ()
    priority: int = 0
    backend: str | None = None
    options: str | None = None
    config: str | None = None
    probe: Callable[[Machine, Job, ModelFacts], str | None] | None = None
    check: Callable[[Job], Iterable[Problem]] | None = None
    decide: Callable[[Machine, Job, ModelFacts], Iterable[Decision]] | None = None
    preflight: str | None = None
    resumes: bool = False
    upload: str | None = None
    estimate: str | None = None
    fit: str | None = None
    pace: str | None = None
    trial: str | None = None
    untried: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def words(self) -> frozenset[str]:
        """All that a need may ask of it."""
        return self.serves | self.supports


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An observer: a module whose hook ``forge_event`` sees what happens in a run.

    An extension acts only if the job names its plugin in ``[use] with``, or holds its table ``[plugins.<name>]``.

    Attributes:
        impl: Name of the module, imported in the worker.
        requires_dist: As in :class:`Offer`.
        config: As in :class:`Offer`.
        check: As in :class:`Offer`: what is wrong with a job on which it acts.
        decide: As in :class:`Offer`: values that such a job leaves open; those of the chosen offers go first.
    """

    impl: str
    requires_dist: tuple[str, ...] = ()
    config: str | None = None
    check: Callable[[Job], Iterable[Problem]] | None = None
    decide: Callable[[Machine, Job, ModelFacts], Iterable[Decision]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function that a job names by a word: a reader of rows, a metric, or a reward.

    Attributes:
        name: The word, ``<plugin>/<word>``. A job reads rows by ``path = "<plugin>/<word>:…"``, and measures or rewards
            by the word alone, in ``[eval] metrics`` or ``[[train.reward]] use``.
        impl: ``"package.module:function"``. A reader has the arguments of ``forge_read`` that it names; metrics and
            rewards have those of a function beside the job.

    Example:
        >>> Function(name="sqlite/rows", impl="forge_sqlite.read:rows").name
        'sqlite/rows'
    """

    name: str
    impl: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a preflight check saw."""

    severity: Literal["error", "warning", "note"]
    message: str
    do: str | None = None
