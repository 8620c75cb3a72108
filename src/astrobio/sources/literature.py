"""Databases of papers and data sets."""

from __future__ import annotations

from astrobio.sources.auth import Credential
from astrobio.sources.kinds import OaiPmh, Rest
from astrobio.sources.kinds.rest import History, Offset
from astrobio.sources.parsers import atom_entries, json_rows, pubmed_articles
from astrobio.sources.placements import Header, Query
from astrobio.sources.record import Evidence, Licence

ADS = Rest(
    name="ads",
    title="NASA Astrophysics Data System",
    base="https://api.adsabs.harvard.edu/v1",
    path="search/query",
    query_name="q",
    params={"fl": "bibcode,title,author,year,abstract,doi,citation_count"},
    pager=Offset("start", "rows", size=200),
    parse=json_rows("response.docs", error="error"),
    identifier="bibcode",
    types={"title": list[str], "year": str | int, "abstract": str | None},
    modality="text",
    licence=Licence("ADS terms of use", "https://ui.adsabs.harvard.edu/help/terms"),
    citation="NASA Astrophysics Data System",
    credential=Credential(
        "ads", Header(), "https://ui.adsabs.harvard.edu/user/settings/token", env=("ADS_API_TOKEN", "ADS_DEV_KEY")
    ),
    example='abs:"biosignature" year:2024',
    tested_by=Evidence(
        "recorded answers",
        "a search answer in the test data of a client of this interface",
        (
            "tests/sources/test_recordings.py::test_ads_search",
            "tests/sources/test_recordings.py::test_ads",
        ),
    ),
)

ARXIV = Rest(
    name="arxiv",
    title="arXiv",
    base="https://export.arxiv.org/api",
    path="query",
    query_name="search_query",
    pager=Offset("start", "max_results", size=100),
    parse=atom_entries,
    identifier="id",
    modality="text",
    licence=Licence("metadata CC0", "https://info.arxiv.org/help/api/tou.html"),
    citation="arXiv",
    example='all:"biosignature gas"',
    rate=(1, 3.0),
    tested_by=Evidence(
        "recorded answers",
        "search and error answers in the test data of a client of this interface",
        (
            "tests/sources/test_recordings.py::test_arxiv_record_and_error",
            "tests/sources/test_recordings.py::test_arxiv",
        ),
    ),
)

NCBI = Rest(
    name="ncbi",
    title="NCBI Entrez, PubMed",
    base="https://eutils.ncbi.nlm.nih.gov/entrez/eutils",
    path="esearch.fcgi",
    query_name="term",
    params={"db": "pubmed", "tool": "astrobio"},
    pager=History("efetch.fcgi", {"rettype": "abstract", "retmode": "xml"}),
    parse=pubmed_articles,
    identifier="pmid",
    modality="text",
    licence=Licence("public domain; abstracts may be protected", "https://www.ncbi.nlm.nih.gov/home/about/policies/"),
    citation="NCBI, National Library of Medicine",
    credential=Credential(
        "ncbi",
        Query("api_key"),
        "https://www.ncbi.nlm.nih.gov/account/settings/",
        env=("NCBI_API_KEY",),
        required=False,
    ),
    example="methanogenesis AND archaea",
    rate=(3, 1.0),
    tested_by=Evidence(
        "recorded answers",
        "PubMed answers in Biopython's test data",
        (
            "tests/sources/test_recordings.py::test_ncbi_article",
            "tests/sources/test_recordings.py::test_ncbi_in_two_steps",
        ),
    ),
)

ZENODO = Rest(
    name="zenodo",
    title="Zenodo, records",
    base="https://zenodo.org/api",
    path="records",
    query_name="q",
    pager=Offset("page", "size", size=25, first=1, by_page=True),
    parse=json_rows("hits.hits"),
    identifier="id",
    modality="text",
    licence=Licence("per record", "https://about.zenodo.org/policies/"),
    citation="Zenodo, CERN",
    credential=Credential(
        "zenodo",
        Header(),
        "https://zenodo.org/account/settings/applications/tokens/new/",
        env=("ZENODO_TOKEN",),
        required=False,
    ),
    example="exoplanet climate model output",
    rate=(1, 1.0),
    tested_by=Evidence(
        "mock contract",
        "answers made after its documentation; see zenodo-oai for recorded ones",
        ("tests/sources/test_kinds.py::test_page_numbers_count_up_to_a_short_page",),
    ),
)

ZENODO_OAI = OaiPmh(
    name="zenodo-oai",
    title="Zenodo, harvesting",
    base="https://zenodo.org/oai2d",
    identifier="identifier",
    modality="text",
    licence=Licence("metadata CC0", "https://about.zenodo.org/policies/"),
    citation="Zenodo, CERN",
    example="identifier=oai:zenodo.org:10357859",
    rate=(1, 1.0),
    tested_by=Evidence(
        "recorded answers",
        "answers in the harvesting client's test data",
        (
            "tests/sources/test_recordings.py::test_zenodo_harvesting",
            "tests/sources/test_recordings.py::test_zenodo_harvesting_error",
        ),
    ),
)

PANGAEA = OaiPmh(
    name="pangaea",
    title="PANGAEA, harvesting",
    base="https://ws.pangaea.de/oai/provider",
    identifier="identifier",
    modality="text",
    licence=Licence("CC BY 4.0 (per data set)", "https://www.pangaea.de/about/terms.php"),
    citation="PANGAEA, doi:10.1038/s41597-023-02269-x",
    example="set=topicAtmosphere&from=2024-01-01&until=2024-01-02",
    rate=(1, 1.0),
    tested_by=Evidence(
        "mock contract",
        "an OAI-PMH server with Dublin Core records; none of its own answers is recorded",
        ("tests/sources/test_servers.py::test_oaipmh_follows_resumption_tokens",),
    ),
)
