"""Show the examples of docstrings in the API reference as code, with what they print."""

import re
from textwrap import dedent

import griffe

# From a prompt to the next empty line, with the heading above it where there is one.
EXAMPLE = re.compile(r"^(?:Example:\n)?( *>>> .*(?:\n.+)*)", re.M)


class DoctestBlocks(griffe.Extension):
    """griffe, which reads the docstrings for mkdocstrings, calls this with every object of the package."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Put each example of a docstring into a block of code."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(as_code, obj.docstring.value)


def as_code(found: re.Match) -> str:
    """A block of code with an example."""
    return f"```pycon\n{dedent(found[1])}\n```"
