"""What is done inside ExoPlaSim's own package, as a program of its own: `exoplasim_child.py prepare|reduce JSON`.

It runs apart because that package compiles and writes beside its modules, changes the working folder and prints; its
copy in the build folder stands first on the path, so the installed one stays as it is. Imports nothing of astrobio.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKS = "-fcheck=all "  # a debugging aid among the compiler's options that doubles a model year's time


def compile_model(build: str) -> None:
    """Configure for this machine's compiler and compile, once a build folder."""
    root = Path(build) / "exoplasim"
    (root / "firstrun").touch()  # else it compiles its transforms by distutils, which current setuptools break
    for name in ("pyfft", "pyfft991"):
        command = [sys.executable, "-m", "numpy.f2py", "-c", "--backend", "meson", "-m", name, f"{name}.f90"]
        subprocess.run(command, cwd=root, check=True)
    importlib.import_module("exoplasim").sysconfigure()
    options = root / "most_compiler"
    options.write_text(options.read_text(encoding="utf-8").replace(CHECKS, ""), encoding="utf-8")


def prepare(work: str, settings: dict[str, Any]) -> None:
    """Fill a work folder with the executable (compiled if it isn't yet) and the namelists of one run."""
    package = importlib.import_module("exoplasim")
    model = package.Model(
        workdir=work, modelname="run", resolution="T21", layers=10, ncpus=1, precision=4, outputtype=".nc"
    )
    model.configure(**settings)


def reduce(raw: str, out: str, variables: list[str], radius: float, gravity: float, gas_constant: float) -> None:
    """Raw spectral output of a year → netCDF of the named variables, twelve means."""
    pyburn = importlib.import_module("exoplasim.pyburn")
    pyburn.postprocess(
        raw, out, logfile="postprocess.log", variables=variables, radius=radius, gravity=gravity, gascon=gas_constant
    )


if __name__ == "__main__":
    {"compile": compile_model, "prepare": prepare, "reduce": reduce}[sys.argv[1]](**json.loads(sys.argv[2]))
