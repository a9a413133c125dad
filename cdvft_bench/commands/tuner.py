"""CDVFT and BCA in scripts of Hugging Face PEFT."""

from pathlib import Path

import click

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.reading import reason_of


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("script", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def peft(script: Path, arguments: tuple[str, ...]) -> None:
    """Run SCRIPT with CDVFT registered, so that PEFT alone can load its configurations and adapters."""
    import runpy
    import sys

    import cdvft_bench.tuner  # noqa: F401 - importing it registers the method

    if not script.is_file():  # a device may have no end, and a pipe would be read twice
        raise UserError(f"script {shown(script)} is no regular file; give a Python file")
    try:
        script.open("rb").close()
    except OSError as error:
        raise UserError(f"script {shown(script)} cannot be read: {reason_of(error)}; give a Python file") from error
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    runpy.run_path(str(script), run_name="__main__")
