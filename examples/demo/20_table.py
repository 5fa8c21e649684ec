"""A table of used cars, no Python: `expertise fit | predict | explain | report`, and the page they make.

Most cars lose value with every year; old ones that people love gain it. Which is which stands in no column.
The four commands are those that a reader types; everything lands in demo-output/table.

Needs: table, report
"""

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "demo-output" / "table"
COMMANDS = (
    "fit cars.csv --target=price --experts=2 --out=model.skops",
    "predict model.skops cars.csv --copy=id --out=predictions.csv",
    "explain model.skops cars.csv --row=5",
    "report model.skops --out=page.html",
)


def main() -> None:
    """Write the table, and run the commands beside it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    write = [sys.executable, str(ROOT / "examples" / "cars.py"), "cars.csv"]
    subprocess.run(write, cwd=FOLDER, check=True, stdout=subprocess.DEVNULL)
    for command in COMMANDS:
        print(f"\n$ expertise {command}", flush=True)
        done = subprocess.run([sys.executable, "-m", "expertise", *shlex.split(command)], cwd=FOLDER)
        if done.returncode:
            sys.exit(done.returncode)
    print(f"\nthe page: {(FOLDER / 'page.html').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
