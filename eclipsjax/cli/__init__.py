"""The command line: `eclipsjax demo`, `eclipsjax reconstruct`, `eclipsjax frames`, `eclipsjax calibrate`,
`eclipsjax simulate`, `eclipsjax info`, `eclipsjax scope new | check | show`,
`eclipsjax train depth | vft | dsm | normals`, `eclipsjax export supervised`.

The commands' modules are light; what is heavy (matplotlib, tifffile, the solvers) they import when they run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
import numpy as np

from eclipsjax import __version__
from eclipsjax._types import InputError
from eclipsjax.cli._running import INTERRUPTED, remembering_ctrl_c
from eclipsjax.cli.calibrate import calibrate
from eclipsjax.cli.demo import demo
from eclipsjax.cli.export import export
from eclipsjax.cli.frames import frames
from eclipsjax.cli.info import info
from eclipsjax.cli.reconstruct import reconstruct
from eclipsjax.cli.scope import scope
from eclipsjax.cli.simulate import simulate
from eclipsjax.cli.train import train

INPUT_ERROR, FAILURE = 2, 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="eclipsjax", message="%(prog)s %(version)s")
def commands() -> None:
    """From the images of a segmented backscattered-electron detector to heights in nanometres, and back."""


for _command in (demo, reconstruct, frames, calibrate, simulate, info, scope, train, export):
    commands.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default with the process's own arguments.

    Exit code: 0, 1 (a file could not be read or written), 2 (wrong input), 130 (Ctrl-C).
    """
    try:
        # What overflows single precision is refused as infinite, in a sentence; NumPy's warning would precede it.
        with remembering_ctrl_c(), np.errstate(over="ignore"):
            code = commands.main(args=arguments, prog_name="eclipsjax", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _say(_in_one_sentence(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = _say("interrupted: nothing was written.", INTERRUPTED)
        return _leave(code) if arguments is None else code
    except InputError as error:
        return _say(_in_options(str(error)), INPUT_ERROR)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}.", FAILURE)
    # Click returns the code of a command that ends early.
    return code if isinstance(code, int) else 0


def _in_one_sentence(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    command = "eclipsjax" if context is None else context.command_path
    return f"{' '.join(error.format_message().split()).rstrip('.')}: {command} -h tells what it takes."


def _say(sentence: str, code: int) -> int:
    click.echo(f"eclipsjax: {sentence}", err=True)
    return code


def _leave(code: int) -> NoReturn:
    """End the process at once: XLA's threads may still be compiling, and Python's orderly end crashes under them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _in_options(message: str) -> str:
    """The library's remedy in the command line's words: keyword arguments become options."""
    message = message.replace("with force", "with --force").replace(
        "save_microscope(scope, path)", "eclipsjax scope new"
    )
    message = message.replace("uncertain holds", "--solve holds")
    for name in ("pixel_size_nm", "height_scale_nm", "radius_px"):
        message = message.replace(f"give {name}", f"give --{name.replace('_', '-')}")
    return message
