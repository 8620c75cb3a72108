"""Small valid files of every kind, seeded damage to them, and the real data where it is at hand."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from astrobio.batch import ClimateCube, Spectrum
from astrobio.formats.climate import LATITUDE, LONGITUDE, canonical_levels, write_climate
from astrobio.formats.spectra import write_spectrum
from astrobio.quality.examine import Options
from astrobio.quality.isolation import Examiner

DATA = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture(scope="session")
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip("the folder of real data beside the checkout is absent")
    return DATA


@pytest.fixture(scope="session")
def examiner():
    """One examining process for all tests; children are replaced when lost."""
    with Examiner(Options(), timeout=60.0, memory=2 * 2**30) as one:
        yield one


def make_spectrum(points: int = 60, seed: int = 0) -> Spectrum:
    rng = np.random.default_rng(seed)
    wavelength = np.linspace(0.6, 5.3, points)
    sigma = np.full(points, 40.0)
    value = 5000.0 + 30.0 * np.sin(wavelength) + rng.normal(0, 40.0, points)
    return Spectrum(wavelength, value, sigma, np.full(points, 0.08))


def make_cube(seed: int = 0, imbalance: float = 0.0) -> ClimateCube:
    rng = np.random.default_rng(seed)
    surface, full = (2, 1, 32, 64), (2, 10, 32, 64)
    fields = {
        "surface_temperature": rng.normal(288, 10, surface),
        "toa_net_downward_shortwave_flux": rng.normal(238 + imbalance, 5, surface),
        "toa_outgoing_longwave_flux": rng.normal(238, 5, surface),
        "air_temperature": rng.normal(250, 10, full),
        "eastward_wind": rng.normal(0, 10, full),
    }
    fields = {k: v.astype(np.float32) for k, v in fields.items()}
    return ClimateCube(fields, canonical_levels(1e5), LATITUDE.copy(), LONGITUDE.copy(), "realizations")


CATALOGUE = """pl_name,hostname,disc_year,sy_dist,ra,dec,pl_orbper,pl_rade,pl_bmasse,pl_eqt,st_teff,st_rad,st_mass
TRAPPIST-1 e,TRAPPIST-1,2017,12.43,346.62,-5.04,6.10,0.92,0.69,250,2566,0.119,0.090
K2-18 b,K2-18,2015,38.1,172.56,7.59,32.9,2.61,8.63,279,3457,0.4445,0.4951
LHS 1140 b,LHS 1140,2017,14.96,11.25,-15.27,24.7,1.73,5.6,226,3096,0.216,0.184
Earth-like,Sun-like,1999,10.0,10.0,10.0,365.25,1.0,1.0,279,5772,1.0,1.0
"""

KEGG = """ENTRY       C00001                      Compound
NAME        H2O;
            Water
FORMULA     H2O
///
ENTRY       R00004                      Reaction
NAME        diphosphate phosphohydrolase
EQUATION    C00013 + C00001 <=> 2 C00009
ENZYME      3.6.1.1
ORTHOLOGY   K01507  inorganic pyrophosphatase [EC:3.6.1.1]
///
"""


def genome_table(genomes: int = 4, numbers: int = 150) -> str:
    rng = np.random.default_rng(3)
    header = "assembly," + ",".join(f"ko:K{n:05d}" for n in range(1, numbers + 1))
    rows = [f"GCF_{g:06d}.1," + ",".join(map(str, rng.integers(1, 4, numbers))) for g in range(genomes)]
    return "\n".join([header, *rows]) + "\n"


def textbook() -> Path:
    """cobra's E. coli core model (gzipped SBML)."""
    import cobra.data

    return Path(next(iter(cobra.data.__path__))) / "textbook.xml.gz"


def mini_json() -> Path:
    return textbook().with_name("mini.json")


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind of file → a small valid one."""
    folder = tmp_path_factory.mktemp("valid")
    paths = {"netcdf": folder / "climate.nc", "csv": folder / "spectrum.csv", "ecsv": folder / "spectrum.ecsv"}
    write_climate(make_cube(), paths["netcdf"])
    write_spectrum(make_spectrum(), paths["csv"])
    write_spectrum(make_spectrum(), paths["ecsv"])
    ratio = 0.07 + 1e-4 * np.random.default_rng(1).normal(size=30)
    table = Table({"wavelength": np.linspace(1, 2, 30), "rp_rs": ratio, "sigma": np.full(30, 1e-4)})
    table["wavelength"].unit = "um"
    table.write(folder / "spectrum.fits")
    table.write(folder / "spectrum.vot", format="votable")
    (folder / "planets.csv").write_text(CATALOGUE)
    (folder / "entries.keg").write_text(KEGG)
    (folder / "genomes.csv").write_text(genome_table())
    paths |= {"fits": folder / "spectrum.fits", "votable": folder / "spectrum.vot", "catalogue": folder / "planets.csv"}
    paths |= {"kegg": folder / "entries.keg", "genomes": folder / "genomes.csv"}
    return paths | {"sbml": textbook(), "json": mini_json()}


@pytest.fixture(scope="session")
def new_spectrum() -> Callable[..., Spectrum]:
    return make_spectrum


@pytest.fixture(scope="session")
def new_cube() -> Callable[..., ClimateCube]:
    return make_cube


# --- damage: what networks, disks, editors and attackers do to files -------------------------------------------------

HOSTILE_TEXT = (
    b"NaN", b"inf", b"-1e308", b"1e999", b"", b"null", b"'; DROP TABLE--", b"\xff\xfe", b"\x00", b"9" * 400, b"=cmd()",
    b"<script>", b"&xxe;", "µ÷…".encode(), b"-0.0", b"0x1F", b"1,5", b"\r\n\r\n", b'"', b"degC", b"furlong fortnight-1",
)  # fmt: skip
HOSTILE_XML = (
    b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
    b'<!DOCTYPE x [<!ENTITY xxe SYSTEM "file:///etc/passwd">]>',
    b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/evil.dtd">',
    b"<a>" * 5000,
    b"<?xml version='1.0' encoding='utf-7'?>",
)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """A transfer that stopped."""
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    """Bits that fell over."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 4, 32, 256))):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def cut(data: bytes, rng: random.Random) -> bytes:
    """A lost block."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 1 + len(data) // 3) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A block that came many times."""
    start = rng.randrange(len(data))
    block = data[start : start + rng.randrange(1, 2000)]
    return data[:start] + block * rng.choice((2, 10, 200)) + data[start:]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Something hostile in the middle."""
    start = rng.randrange(len(data))
    return data[:start] + rng.choice(HOSTILE_TEXT + HOSTILE_XML) + data[start:]


def renumber(data: bytes, rng: random.Random) -> bytes:
    """Numbers replaced by values of the wrong type, unit or size."""
    spots = list(re.finditer(rb"-?\d+\.?\d*", data))
    if not spots:
        return flip(data, rng)
    for spot in sorted(rng.sample(spots, min(len(spots), rng.choice((1, 3, 20)))), key=lambda s: -s.start()):
        data = data[: spot.start()] + rng.choice(HOSTILE_TEXT) + data[spot.end() :]
    return data


def rename(data: bytes, rng: random.Random) -> bytes:
    """A word (a name, a unit, a keyword) replaced everywhere by another of the file."""
    words = sorted(set(re.findall(rb"[A-Za-z_]{3,20}", data)))
    if len(words) < 2:
        return flip(data, rng)
    old, new = rng.sample(words, 2)
    return data.replace(old, new)


def prepend(data: bytes, rng: random.Random) -> bytes:
    """A hostile beginning, or that of another format."""
    heads = (b"\x1f\x8b", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"CDF\x02", b"\x80\x05", b"{", b"<", b"SIMPLE  =")
    return rng.choice(HOSTILE_XML + heads) + data


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncate, flip, cut, repeat, insert, renumber, rename, prepend,
)  # fmt: skip


def make_mutants(data: bytes, count: int, seed: int) -> list[bytes]:
    """`count` damaged copies, some damaged twice; the same for the same seed."""
    rng = random.Random(seed)
    out = []
    for index in range(count):
        mutant = MUTATIONS[index % len(MUTATIONS)](data, rng)
        if mutant and rng.random() < 0.3:
            mutant = rng.choice(MUTATIONS)(mutant, rng)
        out.append(mutant)
    return out


@pytest.fixture(scope="session")
def mutants() -> Callable[[bytes, int, int], list[bytes]]:
    return make_mutants
