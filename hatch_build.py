"""Build step: compiles the scanner of OTLP with Cython, where there is a C compiler.

Without one the package is built all the same, as plain Python, and says so: protobuf then does
the scanner's work, several times slower.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULE = "driftlock_otlp.otlp.scan"
_SOURCE = "driftlock_otlp/otlp/scan.py"


class CompileScanner(BuildHookInterface[Any]):
    """Puts the compiled module into a wheel; beside its source for an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files of the wheel are collected.

        Args:
            version: `editable`, or `standard` for a wheel.
            build_data: What hatchling is told of this wheel.
        """
        root = Path(self.root)
        work = Path(tempfile.mkdtemp(prefix="driftlock-build-"))
        try:
            built = compile_scanner(root, work)
        except Exception as error:
            shutil.rmtree(work, ignore_errors=True)
            if sys.byteorder == "little":
                self.app.display_warning(f"The scanner is not compiled, and OTLP will be read slower: {error}")
            return
        relative = Path(_SOURCE).parent / built.name
        if version == "editable":
            # Renamed into place: a process may be running the one before.
            beside = root / relative.with_name(f".{built.name}.new")
            shutil.copyfile(built, beside)
            beside.replace(root / relative)
            shutil.rmtree(work, ignore_errors=True)
        else:
            self._work = work
            build_data["force_include"][str(built)] = relative.as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what compiling has left."""
        shutil.rmtree(getattr(self, "_work", ""), ignore_errors=True)


def compile_scanner(root: Path, work: Path) -> Path:
    """Compile the scanner and return the file of the module.

    Args:
        root: Of the project.
        work: An empty directory for what comes in between, and the result.

    Raises:
        Exception: Whatever Cython, setuptools or the compiler object to.
    """
    if sys.byteorder != "little":
        raise RuntimeError("it reads numbers of the wire format as they lie in memory")
    # Not at the top: without them the package is to be built as well.
    from Cython.Build import cythonize  # noqa: PLC0415
    from setuptools import Distribution, Extension  # noqa: PLC0415

    source = work / "driftlock_otlp" / "otlp" / "scan.py"
    source.parent.mkdir(parents=True)
    shutil.copyfile(root / _SOURCE, source)
    flags = [] if sys.platform == "win32" else ["-O3", "-fno-strict-aliasing", "-g0"]
    extension = Extension(_MODULE, [str(source)], extra_compile_args=flags)
    distribution = Distribution({"ext_modules": cythonize([extension], build_dir=str(work / "c"), quiet=True)})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(work / "lib"), str(work / "objects")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(_MODULE))
