"""Growth media: what each guild may take up, mmol/gDW/h, by BiGG compound (design choices, as in the models' papers).

The first recipe of a guild is its reference. Light counts as moles of photons.
"""

from __future__ import annotations

UNLIMITED = 1000.0
MINERALS = (
    "ca2", "cl", "cobalt2", "cu2", "fe2", "h", "h2o", "k", "mg2", "mn2", "mobd", "na1", "ni2", "pi", "sel", "slnt",
    "so4", "tungs", "zn2",
)  # fmt: skip
VITAMINS = (
    "4abz", "adocbl", "btn", "cbl1", "fol", "nac", "ncam", "pheme", "pnto__R", "ptrc", "pydam", "pydx", "pydxn",
    "ribflv", "spmd", "thm",
)  # fmt: skip
VITAMIN_UPTAKE = 0.1
PEPTONE = (
    "ala__L", "arg__L", "asn__L", "asp__L", "cys__L", "gln__L", "glu__L", "gly", "his__L", "ile__L", "leu__L",
    "lys__L", "met__L", "phe__L", "pro__L", "ser__L", "thr__L", "trp__L", "tyr__L", "val__L", "ade", "gua",
    "hxan", "ura", "thymd",
)  # fmt: skip

RECIPES: dict[str, tuple[dict[str, float], ...]] = {
    "methanogen": (
        {"h2": 40.0, "co2": UNLIMITED},
        {"ac": 15.0},
        {"meoh": 20.0},
        {"co": 30.0},
        {"tma": 10.0},
        {"h2": 20.0, "ac": 8.0, "co2": UNLIMITED},
        {"h2": 20.0, "meoh": 20.0},
        {"dma": 15.0, "h2": 5.0},
    ),
    "acetogen": (
        {"h2": 20.0, "co": 20.0, "co2": UNLIMITED},
        {"co": 40.0},
        {"fru": 5.0},
        {"h2": 40.0, "co2": UNLIMITED},
        {"fru": 2.0, "co": 20.0, "co2": UNLIMITED},
    ),
    "metal-reducer": (
        {"ac": 10.0, "fe3": UNLIMITED},
        {"etoh": 5.0, "fe3": UNLIMITED},
        {"for": 20.0, "ac": 2.0, "fe3": UNLIMITED},
        {"ac": 10.0, "no3": 20.0, "fe3": UNLIMITED},
    ),
    "fermenter": ({"glc__D": 10.0}, {"fru": 10.0}, {"malt": 5.0}, {"lcts": 5.0}, {"gal": 10.0}, {"rib__D": 8.0}),
    "phototroph": (
        {"photon": 50.0, "co2": UNLIMITED, "hco3": UNLIMITED, "no3": UNLIMITED},
        {"photon": 100.0, "co2": UNLIMITED, "hco3": UNLIMITED, "no3": UNLIMITED},
        {"photon": 30.0, "co2": UNLIMITED, "hco3": UNLIMITED, "nh4": UNLIMITED},
        {"photon": 80.0, "co2": UNLIMITED, "hco3": UNLIMITED, "nh4": UNLIMITED},
        {"photon": 60.0, "co2": 2.0, "hco3": 2.0, "nh4": UNLIMITED},
        {"photon": 60.0, "co2": UNLIMITED, "urea": 5.0},
    ),
    "aerobe": (
        {"glc__D": 10.0, "o2": 20.0},
        {"ac": 15.0, "o2": 20.0},
        {"succ": 10.0, "o2": 20.0},
        {"glyc": 10.0, "o2": 20.0},
        {"lac__L": 10.0, "o2": 20.0},
        {"mal__L": 10.0, "o2": 20.0},
        {"glc__D": 5.0, "o2": 10.0},
        {"fum": 10.0, "o2": 20.0},
    ),
}  # fmt: skip
PEPTONE_UPTAKE = {
    "fermenter": 1.0,
    "aerobe": 0.3,
}  # of each amino acid and base; autotrophs and metal reducers get none
SULFIDE = ("methanogen", "acetogen", "metal-reducer", "fermenter")  # media reduced with H2S and cysteine


def medium(guild: str, recipe: int, scale: float = 1.0) -> dict[str, float]:
    """Largest uptake of each compound in one of a guild's recipes, its limited substrates scaled."""
    uptake: dict[str, float] = {name: UNLIMITED for name in MINERALS} | {name: VITAMIN_UPTAKE for name in VITAMINS}
    chosen = RECIPES[guild][recipe]
    if not {"no3", "urea"} & chosen.keys() or guild != "phototroph":
        uptake["nh4"] = UNLIMITED
    if guild in SULFIDE:
        uptake |= {"h2s": 1.0, "cys__L": 0.5}
    uptake |= dict.fromkeys(PEPTONE if guild in PEPTONE_UPTAKE else (), PEPTONE_UPTAKE.get(guild, 0.0))
    return uptake | {name: value if value == UNLIMITED else value * scale for name, value in chosen.items()}
