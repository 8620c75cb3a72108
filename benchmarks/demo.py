"""The numbers of `make demo` that the README quotes: runs the demo in a fresh folder and keeps its summary.

python benchmarks/demo.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import parser, table, write

ROOT = Path(__file__).parents[1]
KEPT = ("unified", "single", "isolated_late_fusion", "gradient_boosting", "confusion")  # of the evaluation


def main() -> None:
    """Run the demo, write `demo.json`."""
    options = parser((__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([sys.executable, ROOT / "examples/demo.py", "--out", folder], check=True)
        wall = time.perf_counter() - started
        summary = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
    scores = {name: summary["evaluation"][name] for name in KEPT}
    write(options.out, "demo", {"cores": os.cpu_count(), "wall_seconds": round(wall), **summary, "evaluation": scores})
    rows = {"unified": scores["unified"], **scores["single"], "late fusion": scores["isolated_late_fusion"],
            "boosted trees": scores["gradient_boosting"]}  # fmt: skip
    table([("model", "macro accuracy"), *((name, entry["macro_accuracy"]) for name, entry in rows.items())])


if __name__ == "__main__":
    main()
