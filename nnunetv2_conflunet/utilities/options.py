"""Command-line options from dataclass fields: the field holds type, default, choices and help text."""

import argparse
from collections.abc import Iterable
from dataclasses import Field, field, fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def option(default: Any, text: str, *, flag: str | None = None, **argument: Any) -> Any:
    """A field of a settings dataclass that commands offer as an option.

    Args:
        default: the field's default value.
        text: the help text.
        flag: such as ``"-m"``; default: ``--`` and the field's name.
        argument: other arguments of `ArgumentParser.add_argument`, such as `choices` or `metavar`.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Settings:
        ...     window_mm: float = option(3.0, "full width of the window")
        >>> parser = make_parser("smooth", "Smooth images.")
        >>> add_options(parser, Settings)
        >>> Settings(**chosen(Settings, parser.parse_args(["--window_mm", "5"])))
        Settings(window_mm=5.0)
    """
    return field(default=default, metadata={"help": text, "flag": flag, "argument": argument})


def options_of(settings: type) -> dict[str, Field]:
    """The fields of a settings dataclass that :func:`option` made, by name."""
    return {known.name: known for known in fields(settings) if "help" in known.metadata}


def add_options(
    to: argparse._ActionsContainer,
    settings: type,
    names: Iterable[str] | None = None,
    *,
    prefix: str = "",
    instead: str | None = None,
) -> None:
    """Add fields of a settings dataclass as options.

    Args:
        to: a parser or an argument group.
        settings: the dataclass.
        names: which of its fields; default: all that :func:`option` made.
        prefix: of the option names.
        instead: what is used when an option is left out, in words, if that is not the field's default; its value is
            None then.
    """
    known, types = options_of(settings), get_type_hints(settings)
    for name in known if names is None else names:
        one = known[name]
        arguments = _of_type(types[name]) | {"default": one.default, "help": one.metadata["help"]}
        if instead is not None:
            default = "all" if one.default is None else as_text(one.default)
            arguments |= {"default": None, "help": f"{arguments['help']} (default: {instead}, else {default})"}
        flag = one.metadata["flag"] or f"--{prefix}{name}"
        to.add_argument(flag, dest=f"{prefix}{name}", **arguments | one.metadata["argument"])


def chosen(settings: type, args: argparse.Namespace, prefix: str = "") -> dict[str, Any]:
    """The fields of a settings dataclass whose options were parsed, without those that are None."""
    values = {name: getattr(args, f"{prefix}{name}", None) for name in options_of(settings)}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if v is not None}


def as_text(value: Any) -> str:
    """A value as typed on the command line.

    Example:
        >>> as_text((30.0, 0.5))
        '30 0.5'
    """
    if isinstance(value, (list, tuple)):
        return " ".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """An argument parser whose help shows all defaults."""
    return argparse.ArgumentParser(prog=command, description=description, formatter_class=_WithDefaults)


class _WithDefaults(argparse.HelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        default, text = action.default, action.help
        if default is None or default is False or default == argparse.SUPPRESS or not text or "(default" in text:
            return text
        return f"{text} (default: {as_text(default)})"


def _of_type(annotation: Any) -> dict[str, Any]:
    """The arguments of `add_argument` for a field's type: bool, str, int, float, a tuple of these, each optional."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (kind for kind in get_args(annotation) if kind is not NoneType)
    if annotation is bool:
        return {"action": "store_true"}
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        return {"type": items[0], "nargs": "*" if Ellipsis in items else len(items)}
    return {} if annotation is str else {"type": annotation}
