"""Which runs are made, and the settings of each: the one place that knows what `runs:` means."""

from collections.abc import Iterator, Sequence

from workflow_scripts.base.paths import Run
from workflow_scripts.configuration.overlay import merge, without_null
from workflow_scripts.configuration.settings import OVERRIDDEN, Config, OverriddenSection, RunChoice, Section


def possible(settings: Config) -> Iterator[Run]:
    """Every run that the data sets and models allow."""
    for dataset in settings.datasets:
        for version, modes in settings.models.items():
            for mode in modes:
                yield Run(dataset, version, mode)


def chosen(settings: Config) -> list[Run]:
    """The runs that the whole workflow makes: those of an entry of `runs`, or without entries all."""
    return [run for run in possible(settings) if not settings.runs or entries(settings, run)]


def entries(settings: Config, run: Run) -> list[int]:
    """The numbers of the entries of `runs` that a run belongs to."""
    return [number for number, choice in enumerate(settings.runs) if _belongs(run, choice)]


def _belongs(run: Run, choice: RunChoice) -> bool:
    names = (
        (run.dataset, choice.dataset),
        (run.model_version, choice.model_version),
        (run.mode, choice.mode),
    )
    return all(name in allowed or not allowed for name, allowed in names)


def settings_of(settings: Config, run: Run) -> Config:
    """The settings of one run: what its entries state, later over earlier ones, laid over the sections.

    A run without an entry has the sections as they are.
    """
    choices = [settings.runs[number] for number in entries(settings, run)]
    sections: dict[str, Section] = {name: overridden(settings, name, choices) for name in OVERRIDDEN}
    return settings.model_copy(update=sections)


def overridden(settings: Config, name: OverriddenSection, choices: Sequence[RunChoice]) -> Section:
    """A section with what `choices` state for it; a pydantic ValidationError where they do not fit."""
    section: Section = getattr(settings, name)
    stated = [values for choice in choices if (values := getattr(choice, name))]
    if not stated:
        return section
    values = section.model_dump()
    for update in stated:
        values = merge(values, update)
    return type(section).model_validate(without_null(values))
