"""Databases of metabolic networks, enzymes and genomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrobio.errors import InputError
from astrobio.sources.auth import Credential
from astrobio.sources.errors import PayloadError
from astrobio.sources.kinds import FileSet, Job, Rest
from astrobio.sources.kinds.job import Result
from astrobio.sources.kinds.rest import NextLink, Offset
from astrobio.sources.parsers import json_rows, kegg_entries, ptools_objects, table
from astrobio.sources.placements import Header, Login
from astrobio.sources.record import Evidence, Licence

KEGG = Rest(
    name="kegg",
    title="KEGG: compounds, reactions, enzymes, pathways",
    base="https://rest.kegg.jp",
    path="{query}",
    pattern=r"(?:get/[\w:.\-]+(?:\+[\w:.\-]+){0,9}|(?:list|link|conv|find)/[\w:.\-+/]+)",
    parse=kegg_entries,
    identifier="entry",
    modality="metabolism",
    licence=Licence(
        "academic use only; others need their own licence",
        "https://www.kegg.jp/kegg/legal.html",
        "https://www.kegg.jp/kegg/legal.html",
    ),
    citation="Kanehisa et al. 2023, doi:10.1093/nar/gkac963",
    example="get/R04541+C01217",
    rate=(3, 1.0),
    tested_by=Evidence(
        "recorded answers",
        "compound, enzyme and gene files in Biopython's test data",
        ("tests/sources/test_recordings.py::test_kegg",),
    ),
)

BIOCYC = Rest(
    name="biocyc",
    title="BioCyc and MetaCyc",
    base="https://websvc.biocyc.org",
    path="getxml?{query}",
    pattern=r"[A-Z0-9]+:[\w.+\-]+",
    parse=ptools_objects,
    identifier="id",
    modality="metabolism",
    licence=Licence("subscription; bring your own licence", "https://biocyc.org/subscriptions.shtml", "https://biocyc.org/ptools-terms-of-use.shtml"),
    citation="Karp et al. 2019, doi:10.1093/bib/bbx085",
    credential=Credential(
        "biocyc", Login("https://websvc.biocyc.org/credentials/login/"), "https://biocyc.org/new-account.shtml",
        env=("BIOCYC_PASSWORD",), env_user="BIOCYC_EMAIL", machine="websvc.biocyc.org",
    ),
    example="META:TRP",
    rate=(1, 1.0),
    tested_by=Evidence(
        "mock contract",
        "no recorded answer is available; objects made after its web-service guide",
        ("tests/sources/test_auth.py::test_a_login_is_made_once_and_its_cookie_goes_along",),
    ),
)  # fmt: skip

BIGG = FileSet(
    name="bigg",
    title="BiGG Models (SBML)",
    base="http://bigg.ucsd.edu/static/models",
    locate=lambda query: f"{query.strip()}.xml.gz",
    modality="metabolism",
    licence=Licence("non-profit use", "http://bigg.ucsd.edu/license"),
    citation="Norsigian et al. 2020, doi:10.1093/nar/gkz1054",
    example="iJO1366",
    rate=(10, 1.0),
    tested_by=Evidence(
        "recorded answers",
        "its e_coli_core and iJO1366, shipped with cobrapy",
        ("tests/sources/test_recordings.py::test_bigg",),
    ),
)

AGORA2 = FileSet(
    name="agora2",
    title="AGORA2 (Virtual Metabolic Human), reconstructions of gut microbes in SBML",
    base="https://www.vmh.life/files/reconstructions/AGORA2/version2.01/sbml_files_fixed",
    locate=lambda query: f"{query.strip()}.xml",
    modality="metabolism",
    licence=Licence("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"),
    citation="Heinken et al. 2023, doi:10.1038/s41587-022-01628-0",
    example="Methanobrevibacter_smithii_ATCC_35061",
    rate=(2, 1.0),
    tested_by=Evidence(
        "mock contract",
        "SBML of another collection served under its addresses; no file of its own is recorded",
        ("tests/sources/test_recordings.py::test_agora2",),
    ),
)

MODELSEED = FileSet(
    name="modelseed",
    title="ModelSEED biochemistry: compounds and reactions",
    base="https://raw.githubusercontent.com/ModelSEED/ModelSEEDDatabase/master/Biochemistry",
    files={"compounds.tsv": "", "reactions.tsv": ""},
    parse=table("\t"),
    parsed_suffix=".tsv",
    identifier="id",
    modality="metabolism",
    licence=Licence(
        "CC BY 4.0; some parts differ", "https://github.com/ModelSEED/ModelSEEDDatabase/blob/master/LICENSE"
    ),
    citation="Seaver et al. 2021, doi:10.1093/nar/gkaa746",
    example="compounds.tsv#cpd00001",
    tested_by=Evidence(
        "recorded answers",
        "its own compounds and reactions of 2021, written as its tables",
        ("tests/sources/test_recordings.py::test_modelseed",),
    ),
)

UNIPROT = Rest(
    name="uniprot",
    title="UniProtKB",
    base="https://rest.uniprot.org",
    path="uniprotkb/search",
    query_name="query",
    params={"format": "tsv", "fields": "accession,id,gene_primary,protein_name,organism_name,ec,length"},
    pager=NextLink(size_name="size", size=500),
    parse=table("\t"),
    identifier="Entry",
    modality="metabolism",
    licence=Licence("CC BY 4.0", "https://www.uniprot.org/help/license"),
    citation="UniProt Consortium 2025, doi:10.1093/nar/gkae1010",
    example="ec:2.8.4.1 AND reviewed:true",
    tested_by=Evidence(
        "recorded answers",
        "a search answer in the test data of a client of this interface",
        ("tests/sources/test_recordings.py::test_uniprot",),
    ),
)

GTDB = Rest(
    name="gtdb",
    title="Genome Taxonomy Database",
    base="https://gtdb-api.ecogenomic.org",
    path="search/gtdb",
    query_name="search",
    params={"searchField": "all"},
    pager=Offset("page", "itemsPerPage", size=100, first=1, by_page=True),
    parse=json_rows("rows"),
    identifier="gid",
    types={"gtdbTaxonomy": str | None, "ncbiTaxonomy": str | None, "isGtdbSpeciesRep": bool | None},
    modality="metabolism",
    licence=Licence("CC BY-SA 4.0", "https://gtdb.ecogenomic.org/about"),
    citation="Parks et al. 2022, doi:10.1093/nar/gkab776",
    example="Methanosarcina barkeri",
    tested_by=Evidence(
        "mock contract",
        "pages made after the published models of its interface",
        ("tests/sources/test_kinds.py::test_page_numbers_count_up_to_a_short_page",),
    ),
)

MGNIFY = Rest(
    name="mgnify",
    title="MGnify, metagenomic studies",
    base="https://www.ebi.ac.uk/metagenomics/api/v2",
    path="studies/",
    query_name="search",
    pager=Offset("page", "page_size", size=100, first=1, by_page=True),
    parse=json_rows("items"),
    identifier="accession",
    modality="metabolism",
    licence=Licence("EMBL-EBI terms of use", "https://www.ebi.ac.uk/about/terms-of-use"),
    citation="Richardson et al. 2023, doi:10.1093/nar/gkac1080",
    credential=Credential(
        "mgnify", Header(), "https://www.ebi.ac.uk/ena/submit/webin", env=("MGNIFY_TOKEN",), required=False
    ),
    example="hydrothermal vent",
    tested_by=Evidence(
        "mock contract",
        "no recorded answer is available; pages made after its documentation",
        ("tests/sources/test_kinds.py::test_page_numbers_count_up_to_a_short_page",),
    ),
)


def jgi_restoration(query: str) -> tuple[str, dict[str, Any]]:
    """Identifier of a file → path and body of the request to bring it from tape."""
    if not query.strip().isalnum():
        raise InputError(f"jgi: expected the identifier of a file such as {JGI_EXAMPLE!r}, found {query[:60]!r}")
    return "request_archived_files/", {"ids": [query.strip()], "send_mail": False, "api_version": "2"}


def jgi_status(answer: Mapping[str, Any], location: str) -> str:
    """The address of the request's status."""
    if not isinstance(answer.get("request_status_url"), str):
        raise PayloadError(f"jgi: expected a request_status_url, found {str(answer)[:80]}")
    return answer["request_status_url"]


JGI_EXAMPLE = "615a383dcc4ff44f36ca5ba2"
JGI_DOWNLOADS = "https://files-download.jgi.doe.gov"
JGI = Job(
    name="jgi",
    title="JGI Data Portal: genomes, brought back from tape",
    base="https://files.jgi.doe.gov",
    hosts=("files-download.jgi.doe.gov",),
    submission=jgi_restoration,
    status_at=jgi_status,
    done=("ready",),
    failed=("expired", "failed"),
    result_at="",
    result_of=lambda status, query: Result(f"{JGI_DOWNLOADS}/download_files/{query.strip()}/"),
    suffix=".bin",
    modality="metabolism",
    licence=Licence("JGI data policy", "https://jgi.doe.gov/user-programs/pmo-overview/policies/"),
    citation="Nordberg et al. 2014, doi:10.1093/nar/gkt1069",
    credential=Credential(
        "jgi",
        Header("Authorization", "{secret}"),
        "https://data.jgi.doe.gov (menu of your account)",
        env=("JGI_TOKEN",),
    ),
    example=JGI_EXAMPLE,
    tested_by=Evidence(
        "mock contract",
        "no recorded answer is available; a restoration made after its tutorial",
        ("tests/sources/test_kinds.py::test_jgi_brings_a_file_back_from_tape",),
    ),
)
