"""HTML pages from templates; every text in them is escaped."""

from jinja2 import ChoiceLoader, Environment, PackageLoader

from nnunetv2_conflunet.pictures.sections import Section

HOVER = "Hover over a picture to hide the outlines. "
RADIOLOGICAL = (
    "Planes are shown in radiological convention: the patient's right side (R) is on the left of axial and coronal "
    "planes, the front (A) on the left of sagittal ones. "
)
AS_STORED = "The files state no orientation, so planes are shown as stored, without letters. "


def render_page(package: str, template: str, **values: object) -> str:
    """A page from a template, which may use ``base.html.jinja``.

    Args:
        package: that holds the template.
        template: its name.
        values: for the template; `title` and `subtitle` are on every page.
    """
    loader = ChoiceLoader([PackageLoader(package, "."), PackageLoader(__package__, ".")])
    templates = Environment(loader=loader, autoescape=True, trim_blocks=True)
    return templates.get_template(template).render(**values)


def explain_planes(sections: list[Section]) -> str:
    """How to read the pictures of a page, by whether their sides are known."""
    known = any(any(section.letters) for section in sections)
    unknown = any(not any(section.letters) for section in sections)
    return (RADIOLOGICAL if known else "") + (AS_STORED if unknown else "") + HOVER
