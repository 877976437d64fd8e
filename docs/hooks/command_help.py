"""Put the help text of every command into its section of docs/commands.md."""

import importlib
import io
import re
import sys
from contextlib import redirect_stdout, suppress
from unittest import mock

MARK = re.compile(r"<!-- help of (\w+) -->")
WIDTH = "100"


def on_page_markdown(markdown, page, config, files):
    """MkDocs calls this with every page."""
    return MARK.sub(lambda found: help_text(found[1]), markdown)


def help_text(command):
    """A code block with what ``nnUNetv2_conflunet_<command> -h`` prints."""
    main = importlib.import_module(f"nnunetv2_conflunet.commands.{command}").main
    printed = io.StringIO()
    arguments = mock.patch.object(sys, "argv", [f"nnUNetv2_conflunet_{command}", "-h"])
    width = mock.patch.dict("os.environ", COLUMNS=WIDTH)
    with arguments, width, redirect_stdout(printed), suppress(SystemExit):
        main()
    return "".join(f"    {line}\n" for line in printed.getvalue().splitlines())
