"""The whole path once: simulate worlds, train the joint system, compare it with isolated models, assess one world.

Every step is an `astrobio` command that you can run by hand; each is printed before it runs. Finished steps are kept,
so an interrupted demo resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console()
seconds: dict[str, float] = {}  # that each command took


def run(*arguments: str) -> None:
    """Print and run one `astrobio` command; stop the demo where it fails."""
    console.print(f"\n[bold]$ astrobio {' '.join(arguments)}[/bold]", soft_wrap=True, highlight=False)
    program = Path(sys.executable).with_name("astrobio")
    started = time.perf_counter()
    if subprocess.run([program, *arguments], check=False).returncode != 0:
        sys.exit(f"demo stopped: `astrobio {arguments[0]}` failed; its message above says why")
    seconds[arguments[0]] = round(time.perf_counter() - started, 1)
    console.print(f"[dim]{seconds[arguments[0]]:.0f} s[/dim]")


def export_test_world(data: Path, out: Path) -> dict[str, str]:
    """Write one held-out world to the field's file formats; returns paths, its text and its true state."""
    from astrobio.dataset.reader import WorldDataset
    from astrobio.formats.climate import write_climate
    from astrobio.formats.metabolism import write_metabolism
    from astrobio.formats.spectra import write_spectrum

    worlds = WorldDataset(data, "test")
    sample = next(w for w in (worlds[i] for i in range(len(worlds))) if w.state == "oxygenic-biosphere")
    assert sample.spectrum and sample.climate and sample.metabolism and sample.context and sample.state
    out.mkdir(parents=True, exist_ok=True)
    paths = {"spectrum": out / "spectrum.ecsv", "climate": out / "climate.nc", "metabolism": out / "metabolism.json"}
    write_spectrum(sample.spectrum, paths["spectrum"])
    write_climate(sample.climate, paths["climate"])
    write_metabolism(sample.metabolism, paths["metabolism"])
    return {**{k: str(v) for k, v in paths.items()}, "text": sample.context, "state": sample.state}


def show(evaluation: dict) -> None:
    """The demo's own numbers, with their intervals."""
    table = Table(title="Held-out worlds (stars and climate draws unseen): macro accuracy", title_justify="left")
    for column in ("model", "macro accuracy", "95% interval"):
        table.add_column(column)
    rows = {"unified": evaluation["unified"], **{f"{k} alone": v for k, v in evaluation["single"].items()}}
    rows["isolated, fused late"] = evaluation["isolated_late_fusion"]
    rows["gradient boosting"] = evaluation["gradient_boosting"]
    for name, entry in rows.items():
        low, high = entry["ci95"]
        table.add_row(name, f"{100 * entry['macro_accuracy']:.1f}%", f"{100 * low:.1f} … {100 * high:.1f}%")
    console.print(table)


def assess(world: dict[str, str], out: Path, *trained: str) -> float:
    """Assess a world by a trained run, or by the model that ships; returns P(inhabited)."""
    run("assess", *trained, "--spectrum", world["spectrum"], "--climate", world["climate"],
        "--metabolism", world["metabolism"], "--text", world["text"],
        "--out", f"{out}.html", "--json", f"{out}.json")  # fmt: skip
    return json.loads(Path(f"{out}.json").read_text())["inhabited"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-run"), help="folder for everything the demo makes")
    parser.add_argument("--worlds", type=int, default=300, help="worlds to simulate")
    parser.add_argument("--steps", type=int, default=45, help="training steps")
    options = parser.parse_args()
    data, run_dir, evaluation = options.out / "worlds", options.out / "run", options.out / "evaluation.json"

    # Not seed 1: the model that ships was trained on worlds of that.
    run("simulate", "--worlds", str(options.worlds), "--seed", "2", "--depth", "deep", "--out", str(data))
    run("train", "--preset", "mini", "--data", str(data), "--out", str(run_dir),
        "--set", f"training.steps={options.steps}", "--set", "training.validate_every=15",
        "--set", "training.warmup_steps=10")  # fmt: skip
    run("evaluate", str(run_dir), "--data", str(data), "--json", str(evaluation))
    world = export_test_world(data, options.out / "world")
    own = assess(world, options.out / "report", str(run_dir))
    shipped = assess(world, options.out / "report-of-the-shipped-model")

    scores = json.loads(evaluation.read_text())
    show(scores)
    summary = {"worlds": options.worlds, "steps": options.steps, "seconds": seconds, "evaluation": scores,
               "assessed": {"state": world["state"], "inhabited": own, "inhabited_by_shipped": shipped}}  # fmt: skip
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    console.print(
        f"The assessed world is in truth: [bold]{world['state']}[/bold]. Inhabited, says the system after this "
        f"minute of training: {100 * own:.0f}%; the one that ships, trained on 20,000 worlds: {100 * shipped:.0f}%."
    )
    for name in ("report.html", "report-of-the-shipped-model.html"):
        console.print(f"To open in a browser: [bold]{(options.out / name).resolve()}[/bold]", soft_wrap=True)


if __name__ == "__main__":
    main()
