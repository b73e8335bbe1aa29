"""HTML from templates, in which whatever a run holds is escaped and cleaned, so that no template has to remember it.

A report shows model outputs, file names and messages of libraries. None of them may become markup, hide text or turn
its direction around, whatever they hold. Every value goes through :func:`seen` and jinja2's escaping on its way into a
template, and ``Markup`` is made only here, of what a template became.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forge.api import masked
from forge.text.units import size
from forge.text.visible import visible
from forge_report.text import clock, cut, moment


def fill(template: str, **told: object) -> Markup:
    """Return what a template becomes with the values that it names.

    Args:
        template: Its name in ``templates/``, without ``.html.jinja``.
        told: What it shows. A name that the template asks for and that is not here is an error.
    """
    return Markup(_environment().get_template(f"{template}.html.jinja").render(told))  # noqa: S704 - of our templates


def seen(value: object) -> object:
    """Return a value as text, without logins, what would not be seen shown by its number; None is nothing."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else visible(masked(str(value)))


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("forge_report"),
        autoescape=True,
        finalize=seen,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"clock": clock, "cut": cut, "moment": moment, "size": size}
    return made
