"""Real databases: `ALL_SOURCES` names them, `fetch` asks one of them, records carry provenance and licence."""

from __future__ import annotations

import difflib

from astrobio.errors import InputError
from astrobio.sources.client import Settings
from astrobio.sources.climate import CMIP6_ZARR, COPERNICUS_CDS, ESGF, GES_DISC, NASA_CMR
from astrobio.sources.errors import CredentialError, LicenceError, OfflineError, PayloadError, SourceError
from astrobio.sources.exoplanets import ESO, EXOPLANET_EU, GAIA, NASA_EXOPLANET_ARCHIVE, PDS
from astrobio.sources.kinds import Source, fetch
from astrobio.sources.literature import ADS, ARXIV, NCBI, PANGAEA, ZENODO, ZENODO_OAI
from astrobio.sources.metabolism import AGORA2, BIGG, BIOCYC, GTDB, JGI, KEGG, MGNIFY, MODELSEED, UNIPROT
from astrobio.sources.record import Answer, Evidence, Licence, Provenance, Record
from astrobio.sources.spectra import EXOMOL, HITRAN, MAST, PSG

ALL_SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        NASA_EXOPLANET_ARCHIVE, EXOPLANET_EU, GAIA, ESO, PDS,
        MAST, EXOMOL, HITRAN, PSG,
        COPERNICUS_CDS, NASA_CMR, GES_DISC, ESGF, CMIP6_ZARR,
        KEGG, BIOCYC, BIGG, AGORA2, MODELSEED, UNIPROT, GTDB, MGNIFY, JGI,
        ADS, ARXIV, NCBI, ZENODO, ZENODO_OAI, PANGAEA,
    )
}  # fmt: skip


def find_source(name: str) -> Source:
    """A database by name.

    Raises:
        InputError: there is none of that name; the message proposes near ones.
    """
    if name not in ALL_SOURCES:
        near = difflib.get_close_matches(name, ALL_SOURCES, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "`astrobio sources list` names them"
        raise InputError(f"source {name!r}: expected a known database, found none of that name; {hint}")
    return ALL_SOURCES[name]


__all__ = [
    "ALL_SOURCES",
    "Answer",
    "CredentialError",
    "Evidence",
    "Licence",
    "LicenceError",
    "OfflineError",
    "PayloadError",
    "Provenance",
    "Record",
    "Settings",
    "Source",
    "SourceError",
    "fetch",
    "find_source",
]
