"""HTML from templates, in which whatever a run holds is escaped and cleaned, so that no template has to remember it.

A report shows model outputs, file names and messages of libraries. None of them may become markup, hide text or turn
its direction around, whatever they hold. Every value goes through :func:`seen` and jinja2's escaping on its way into a
template, and ``Markup`` is made only here, of what a template became.
"""

from __future__ import annotations

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forge.text.units import size
from forge_report.text import clock, cut, moment

UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters, marks that change the direction of text, letters without width, and halves of surrogate pairs."""


def fill(template: str, **told: object) -> Markup:
    """Return what a template becomes with the values that it names.

    Args:
        template: Its name in ``templates/``, without ``.html.jinja``.
        told: What it shows. A name that the template asks for and that is not here is an error.
    """
    return Markup(_environment().get_template(f"{template}.html.jinja").render(told))  # noqa: S704 - of our templates


def seen(value: object) -> object:
    """Return a value as text in which characters that would not be seen are shown by their numbers; None is nothing."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else UNSEEN.sub(_number, str(value))


def _number(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


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
