"""Write a table of used cars: most lose value with every year, old ones of some brands gain it.

python examples/cars.py cars.csv

The brands are made up, and so are the prices: `price`, in thousands, follows one of two laws, and no column
says which. A car of 26 years may be under the one as well as under the other, a Corvo of 23.
"""

import csv
import sys
from pathlib import Path

import numpy as np

BRANDS = ("Aurora", "Borealis", "Corvo", "Dacite")


def write_cars(path: Path, n: int = 1200, seed: int = 0) -> None:
    """Write n cars to a CSV; some rows miss their kilometres, as in life."""
    rng = np.random.default_rng(seed)
    brand = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    age = rng.uniform(0, 45, n).round(1)
    km = rng.gamma(4, 30 + age).round(0)
    power = rng.normal(100, 25, n).clip(40).round(0)
    automatic = rng.random(n) < 0.4
    days = rng.integers(0, 730, n)
    loved = rng.random(n) < 1 / (1 + np.exp(-(age - 26 + 3 * (brand == 2)) / 1.2))
    used = 30 - 0.9 * age - 0.03 * km + 0.09 * power + 1.5 * automatic + rng.normal(0, 1.2, n)
    loved_price = 1.1 * (age - 20) + 0.2 * power + 6 * (brand == 2) + rng.normal(0, 4, n)
    price = np.where(loved, loved_price, used)
    first = np.datetime64("2024-01-01")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "brand", "age", "km", "power", "automatic", "sold", "price"])
        for i in range(n):
            writer.writerow(
                [
                    i,
                    BRANDS[brand[i]],
                    age[i],
                    "" if rng.random() < 0.03 else int(km[i]),
                    int(power[i]),
                    "yes" if automatic[i] else "no",
                    first + int(days[i]),
                    round(float(price[i]), 2),
                ]
            )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the file to write: python examples/cars.py cars.csv")
    write_cars(Path(sys.argv[1]))
    print(f"wrote {sys.argv[1]}")
