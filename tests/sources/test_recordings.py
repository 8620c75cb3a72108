"""Recorded real answers of the databases parse completely, and recorded errors give clear errors."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode

import libsbml
import numpy as np
import pytest
from astropy.io.votable import parse_single_table
from astropy.table import Table
from pytest_httpserver import HTTPServer
from werkzeug import Request as WebRequest
from werkzeug import Response as WebResponse

from astrobio.formats.spectra_table import read_tables
from astrobio.quality.examine import examine
from astrobio.sources import ALL_SOURCES, PayloadError, SourceError, fetch
from astrobio.sources.client import Settings
from astrobio.sources.kinds.tap import votable_rows
from astrobio.sources.parsers import atom_entries, hitran_lines, json_rows, pubmed_articles
from astrobio.sources.samples import metabolism_of

ASTROQUERY = files("astroquery")
PLANETS = Path(__file__).parents[1] / "services" / "exo" / "planets.csv"


def recorded(*parts: str) -> bytes:
    """A recorded answer of astroquery's wheel."""
    return ASTROQUERY.joinpath(*parts).read_bytes()


def serve(server: HTTPServer, body: bytes, **kwargs: object) -> str:
    """One answer for everything."""
    server.expect_request(re.compile(".*")).respond_with_data(body, **kwargs)  # type: ignore[arg-type]
    return server.url_for("")


def test_gaia(httpserver: HTTPServer, local, settings: Settings) -> None:
    body = recorded("gaia", "tests", "data", "1710099405832VAL-result.vot")
    answer = fetch(
        local("gaia", serve(httpserver, body, content_type="application/x-votable+xml")), "1", settings=settings
    )
    table = parse_single_table(io.BytesIO(body)).to_table(use_names_over_ids=True)
    assert len(answer.records) == len(table) == 2
    assert [r.payload["source_id"] for r in answer.records] == [int(x) for x in table["source_id"]]
    row = answer.records[0].payload
    assert set(row) == set(table.colnames)
    for name in ("ra", "dec", "parallax", "phot_g_mean_mag"):
        assert row[name] == pytest.approx(float(table[name][0]))


@pytest.mark.parametrize(
    "path", sorted(p.name for p in files("pyvo").joinpath("dal/tests/data/tap").iterdir() if p.name.endswith(".xml"))
)
def test_virtual_observatory_answers(path: str) -> None:
    """Whatever pyvo's authors recorded of TAP services: a table, or one clear error."""
    body = files("pyvo").joinpath("dal/tests/data/tap", path).read_bytes()
    try:
        rows = votable_rows(body, path)
    except SourceError as error:
        assert path in str(error) and len(str(error)) < 600
        assert b"<TABLE" not in body or b'value="ERROR"' in body or b"TABLEDATA" not in body
    else:
        assert len(rows) == len(re.findall(rb"<TR[ >]", body)) or b"BINARY" in body


def test_a_recorded_query_error_is_quoted() -> None:
    info = b'<INFO name="QUERY_STATUS" value="ERROR">unknown column pl_nam</INFO>'
    body = b'<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
    body += b'<RESOURCE type="results">' + info + b"</RESOURCE></VOTABLE>"
    with pytest.raises(SourceError, match="the query was refused: unknown column pl_nam"):
        votable_rows(body, "nasa")


def test_mast(httpserver: HTTPServer, local, settings: Settings) -> None:
    body = recorded("mast", "tests", "data", "caom.json")
    answer = fetch(local("mast", serve(httpserver, body)), "LO-LAT", settings=settings)
    assert len(answer.records) == len(json.loads(body)["data"]) == 19 and not answer.quarantined
    assert answer.records[0].identifier == "U27XCS01T"
    sent = json.loads(httpserver.log[0][0].form["request"])
    assert sent["params"]["filters"][0] == {"paramName": "target_name", "values": ["LO-LAT"]}


def test_mast_reads_all_pages(httpserver: HTTPServer, local, settings: Settings) -> None:
    data = json.loads(recorded("mast", "tests", "data", "caom.json"))

    def page(request: WebRequest) -> WebResponse:
        number = json.loads(request.form["request"])["page"]
        part = data["data"][(number - 1) * 10 : number * 10]
        return WebResponse(json.dumps({**data, "data": part, "paging": {"page": number, "pagesFiltered": 2}}))

    httpserver.expect_request("/api/v0/invoke").respond_with_handler(page)
    answer = fetch(local("mast", httpserver.url_for("")), "LO-LAT", settings=settings)
    assert [r.identifier for r in answer.records] == [row["obs_id"] for row in data["data"]]


def test_eso_login(httpserver: HTTPServer, local, settings: Settings) -> None:
    """The recorded token answer of ESO's login gives the bearer token of the next request."""
    source = local("eso", httpserver.url_for("/tap_obs"))
    placement = replace(source.credential.placement, token_url=httpserver.url_for("/token"))
    source = replace(source, credential=replace(source.credential, placement=placement))
    token = recorded("eso", "tests", "data", "oidc_token.json")
    httpserver.expect_oneshot_request("/token", method="POST").respond_with_data(token)
    bearer = {"Authorization": f"Bearer {json.loads(token)['id_token']}"}
    empty = (
        b"<VOTABLE><RESOURCE type='results'><INFO name='QUERY_STATUS' value='OK'/><TABLE>"
        b"<FIELD name='obs_publisher_did' datatype='char' arraysize='*'/>"
        b"<DATA><TABLEDATA/></DATA></TABLE></RESOURCE></VOTABLE>"
    )
    httpserver.expect_request("/tap_obs/sync", headers=bearer).respond_with_data(empty, content_type="text/xml")
    answer = fetch(source, "TRAPPIST-1", settings=replace(settings, secrets={"eso": "someone:pass-word-1"}))
    assert answer.records == [] and answer.complete
    form = httpserver.log[0][0].form
    assert (form["username"], form["password"], form["grant_type"]) == ("someone", "pass-word-1", "password")


def test_hitran(httpserver: HTTPServer, local, settings: Settings) -> None:
    body = recorded("hitran", "tests", "data", "H2O.data")
    answer = fetch(local("hitran", serve(httpserver, body)), "1 0 100", settings=settings)
    lines = body.decode().splitlines()
    assert len(answer.records) == len(lines) == 122
    first = answer.records[0].payload
    assert (first["molec_id"], first["local_iso_id"], first["nu"], first["sw"]) == (1, "1", 0.072059, 2.043e-30)
    assert first["elower"] == 1922.8291 and first["gpp"] == 11.0
    assert all(np.diff([r.payload["nu"] for r in answer.records]) >= 0)


def test_hitran_refuses_a_page_in_place_of_lines() -> None:
    with pytest.raises(PayloadError, match="line 1: expected 160 characters, found"):
        hitran_lines(b"<html>Please register</html>", "hitran")


def test_exomol(httpserver: HTTPServer, local, settings: Settings, recording) -> None:
    body = recording("exomol_12C-16O__Li2015.def")
    httpserver.expect_request("/CO/12C-16O/Li2015/12C-16O__Li2015.def").respond_with_data(body)
    record = fetch(local("exomol", httpserver.url_for("")), "CO/12C-16O/Li2015", settings=settings).records[0]
    row = record.payload
    assert record.identifier == "12C-16O" and row["IsoFormula"] == "(12C)(16O)"
    assert row["No. of states in .states file"] == "6383" and row["Total number of transitions"] == "79773"
    assert row["Quantum label"] == ["v", "kp"] and row["Isotope number"] == ["12", "16"]
    assert sum(len(v) if isinstance(v, list) else 1 for v in row.values()) == len(body.splitlines()) - 1


def test_uniprot(httpserver: HTTPServer, local, settings: Settings, recording) -> None:
    """The recorded table in two pages, joined by a Link header of the recorded form."""
    head, *rows = recording("uniprot_search.tsv").decode().splitlines()
    cursor = {"format": "tsv", "query": "FUBP3", "cursor": "1bq1yslaqtbf8zs", "size": "500"}
    link = f'<{httpserver.url_for("/uniprotkb/search")}?{urlencode(cursor)}>; rel="next"'
    pages = ["\n".join([head, *part]) + "\n" for part in (rows[:8], rows[8:])]
    httpserver.expect_request("/uniprotkb/search", query_string=cursor).respond_with_data(pages[1])
    httpserver.expect_request("/uniprotkb/search").respond_with_data(pages[0], headers={"Link": link})
    answer = fetch(local("uniprot", httpserver.url_for("")), "FUBP3", settings=settings)
    assert [r.identifier for r in answer.records] == [row.split("\t")[0] for row in rows]
    assert answer.complete and len(httpserver.log) == 2


def test_zenodo_harvesting(httpserver: HTTPServer, local, settings: Settings, recording) -> None:
    base = serve(httpserver, recording("zenodo_oai_get_record.xml"), content_type="text/xml")
    record = fetch(local("zenodo-oai", base), "identifier=oai:zenodo.org:10357859", settings=settings).records[0]
    assert record.identifier == "oai:zenodo.org:10357859" and record.payload["datestamp"] == "2023-12-11T17:26:46Z"
    assert len(record.payload["creator"]) == 9 and record.payload["creator"][3] == "Schröder, Max"


def test_zenodo_harvesting_error(httpserver: HTTPServer, local, settings: Settings, recording) -> None:
    base = serve(httpserver, recording("zenodo_oai_unknown_identifier.xml"), status=422, content_type="text/xml")
    with pytest.raises(SourceError, match=r"zenodo-oai: IdDoesNotExist: No matching identifier"):
        fetch(local("zenodo-oai", base), "identifier=oai:zenodo.org:XXX", settings=settings)


def test_nasa_exoplanet_archive(httpserver: HTTPServer, local, settings: Settings) -> None:
    """The archive's own rows, in a VOTable."""
    rows = [row for row in csv.DictReader(PLANETS.read_text().splitlines()) if row["hostname"] == "TRAPPIST-1"]
    table = Table({name: [float(row[name]) for row in rows] for name in ("pl_rade", "pl_orbper", "st_teff")})
    table.add_column([row["pl_name"] for row in rows], name="pl_name", index=0)
    body = io.BytesIO()
    table.write(body, format="votable")
    base = serve(httpserver, body.getvalue(), content_type="application/x-votable+xml")
    answer = fetch(local("nasa-exoplanet-archive", base), "TRAPPIST-1", settings=settings)
    assert [r.identifier for r in answer.records] == [row["pl_name"] for row in rows] and len(rows) == 7
    assert "FROM pscomppars WHERE pl_name = 'TRAPPIST-1'" in httpserver.log[0][0].form["QUERY"]
    assert answer.records[0].payload["pl_rade"] == pytest.approx(float(rows[0]["pl_rade"]))


ARCHIVE = ASTROQUERY.joinpath("ipac/nexsci/nasa_exoplanet_archive/tests/data")


@pytest.mark.parametrize("name", sorted(p.name for p in ARCHIVE.iterdir() if p.name.endswith(".txt")))
def test_the_archives_downloads_parse_completely(name: str) -> None:
    """Tables of the Exoplanet Archive's older interface, in IPAC's format: every row and column."""
    path = Path(str(ARCHIVE.joinpath(name)))
    lines = path.read_text().splitlines()
    table = read_tables(path)[0]
    header = next(line for line in lines if line.startswith("|"))
    assert [c.name for c in table.columns] == [cell.strip() for cell in header.strip("|").split("|")]
    assert len(table.columns[0].values) == sum(line[:1] not in ("\\", "|", "") for line in lines)
    report = examine(path)
    known = {"hostname", "pl_name", "toi", "kepoi_name", "kepler_name"} & {c.name for c in table.columns}
    assert report.kind == ("catalogue" if known else report.kind) and "FILE-003" not in {
        f.rule for f in report.findings
    }


def test_arxiv_record_and_error(httpserver: HTTPServer, local, settings: Settings, recording) -> None:
    httpserver.expect_oneshot_request("/query").respond_with_data(recording("arxiv_astro-ph_0601001.xml"))
    httpserver.expect_request("/query").respond_with_data(recording("arxiv_incorrect_id.xml"), status=400)
    source = local("arxiv", httpserver.url_for(""))
    record = fetch(source, "hot Jupiters", settings=settings).records[0]
    assert record.identifier == "http://arxiv.org/abs/astro-ph/0601001v1" and len(record.payload["authors"]) == 4
    assert record.payload["title"].startswith("Frequency of Hot Jupiters")
    with pytest.raises(SourceError, match=r"arxiv: HTTP 400.*incorrect id format for abc"):
        fetch(source, "wrong", settings=settings)


def test_ads_search(httpserver: HTTPServer, local, settings: Settings, recording) -> None:
    source = local("ads", serve(httpserver, recording("ads_search.json")))
    answer = fetch(source, "first_author:Sudilovsky", settings=replace(settings, secrets={"ads": "token-of-test"}))
    codes = ["1971Sci...174..142S", "2012GCN..13229...1S", "2012GCN..13048...1S"]
    assert [r.identifier for r in answer.records] == codes and not answer.quarantined


def test_cmr_granules(httpserver: HTTPServer, local, settings: Settings, recording) -> None:
    source = local("nasa-cmr", serve(httpserver, recording("cmr_granules_umm.json")))
    record = fetch(source, "GPM_3IMERGHH", settings=settings).records[0]
    assert record.payload["meta"]["concept-id"] == "G1618495041-GES_DISC"
    assert record.payload["umm"]["RelatedUrls"][0]["Type"] == "GET DATA"


def test_ncbi_article(httpserver: HTTPServer, local, settings: Settings, recording) -> None:
    search = {"esearchresult": {"count": "1", "webenv": "MCID_1", "querykey": "1", "idlist": []}}
    httpserver.expect_request("/esearch.fcgi").respond_with_json(search)
    httpserver.expect_request("/efetch.fcgi").respond_with_data(recording("ncbi_pubmed.xml"))
    record = fetch(local("ncbi", httpserver.url_for("")), "MRI", settings=settings).records[0]
    assert record.identifier == "11700088" and record.payload["title"].startswith("Proton MRI of (13)C")


def test_agora2(httpserver: HTTPServer, local, settings: Settings) -> None:
    """SBML of another collection under AGORA2's addresses."""
    body = gzip.decompress(files("cobra").joinpath("data/textbook.xml.gz").read_bytes())
    httpserver.expect_request("/Methanobrevibacter_smithii_ATCC_35061.xml").respond_with_data(body)
    answer = fetch(local("agora2", httpserver.url_for("")), "Methanobrevibacter_smithii_ATCC_35061", settings=settings)
    assert answer.records[0].payload.suffix == ".xml" and len(metabolism_of(answer.records[0]).reactions) >= 70


def test_arxiv(local, httpserver: HTTPServer, settings: Settings, payload) -> None:
    folder = payload("payloads", "arxiv.py", "tests", "fixtures")
    total = 0
    for path in sorted(folder.glob("*.json")):
        answer = json.loads(path.read_text())
        body = answer["body"].encode()
        if "api/errors" in answer["body"]:
            with pytest.raises(SourceError, match="the database reports"):
                atom_entries(body, "arxiv")
            continue
        if answer["status_code"] != 200:
            continue
        rows = atom_entries(body, "arxiv")
        assert len(rows) == answer["body"].count("<entry>")
        assert all(row["title"] and row["authors"] and row["id"].startswith("http") for row in rows)
        total += len(rows)
    assert total > 200


def test_arxiv_pages(local, httpserver: HTTPServer, settings: Settings, payload) -> None:
    """Recorded pages 0…50 of one search, asked for as the recorder did."""
    pages = {}
    for path in payload("payloads", "arxiv.py", "tests", "fixtures").glob("q_testing_s*_m10_*.json"):
        pages[re.search(r"_s(\d+)_", path.name)[1]] = json.loads(path.read_text())["body"]
    httpserver.expect_request("/query").respond_with_handler(lambda r: WebResponse(pages[r.args["start"]]))
    source = local("arxiv", httpserver.url_for(""), pager=replace(ALL_SOURCES["arxiv"].pager, size=10))
    answer = fetch(source, "testing", settings=settings, limit=50)
    assert len(answer.records) == 50 and len({r.identifier for r in answer.records}) == 50


def test_ads(httpserver: HTTPServer, local, settings: Settings, payload) -> None:
    body = payload("payloads", "ads", "solr__example_solr_response.json").read_bytes()
    data = json.loads(body)["response"]
    source = local("ads", serve(httpserver, body))
    answer = fetch(source, "first_author:Sudilovsky", settings=replace(settings, secrets={"ads": "token-of-test"}))
    assert len(answer.records) == len(data["docs"]) and not answer.quarantined
    assert [r.identifier for r in answer.records] == [doc["bibcode"] for doc in data["docs"]]


def test_ads_error(httpserver: HTTPServer, local, settings: Settings) -> None:
    source = local("ads", serve(httpserver, b'{"error": {"msg": "undefined field foo", "code": 400}}'))
    with pytest.raises(SourceError, match=r"the database reports: .*undefined field foo"):
        fetch(source, "foo:bar", settings=replace(settings, secrets={"ads": "token-of-test"}))


def test_ncbi(httpserver: HTTPServer, local, settings: Settings, payload) -> None:
    """A search whose hits stay on the server, then recorded PubMed articles."""
    count = 0
    for name in ("pubmed1.xml", "pubmed2.xml", "pubmed4.xml", "pubmed5.xml", "pubmed6.xml", "pubmed7.xml"):
        body = payload("payloads", "biopython", "Entrez", name).read_bytes()
        if b"<PubmedArticleSet" not in body:
            continue
        rows = pubmed_articles(body, name)
        assert len(rows) == len(re.findall(rb"<PubmedArticle[ >]", body))
        assert all(row["pmid"].isdigit() and row["title"] for row in rows)
        count += len(rows)
    assert count >= 4


def test_ncbi_in_two_steps(httpserver: HTTPServer, local, settings: Settings, payload) -> None:
    body = payload("payloads", "biopython", "Entrez", "pubmed2.xml").read_bytes()
    search = {"esearchresult": {"count": "2", "webenv": "MCID_1", "querykey": "1", "idlist": []}}
    httpserver.expect_request("/esearch.fcgi").respond_with_json(search)
    httpserver.expect_request("/efetch.fcgi").respond_with_data(body)
    answer = fetch(local("ncbi", httpserver.url_for("")), "archaea", settings=settings)
    assert len(answer.records) == len(re.findall(rb"<PubmedArticle[ >]", body)) > 0
    assert httpserver.log[1][0].args["WebEnv"] == "MCID_1"


def test_ncbi_error(httpserver: HTTPServer, local, settings: Settings) -> None:
    base = serve(httpserver, b'{"esearchresult": {"ERROR": "Invalid db name specified: nodb"}}')
    with pytest.raises(SourceError, match="Invalid db name specified"):
        fetch(local("ncbi", base), "archaea", settings=settings)


@pytest.mark.parametrize(
    "name",
    [
        "compound.sample",
        "compound.irregular",
        "enzyme.sample",
        "enzyme.irregular",
        "enzyme.4letter",
        "enzyme.new",
        "gene.sample",
    ],
)
def test_kegg(name: str, httpserver: HTTPServer, local, settings: Settings, payload) -> None:
    body = payload("payloads", "biopython", "KEGG", name).read_bytes()
    known = replace(settings, accepted=frozenset({"kegg"}))
    answer = fetch(local("kegg", serve(httpserver, body)), "get/C00023", settings=known)
    rows = [record.payload for record in answer.records]
    assert answer.complete and not answer.quarantined
    assert len(rows) == len(re.findall(rb"^ENTRY", body, re.MULTILINE)) > 0
    for row in rows:
        assert row["fields"]["ENTRY"] and row["kind"] in ("compound", "enzyme", "cds")
    if name == "compound.sample":
        iron = next(row for row in rows if row["entry"] == "C00023")
        assert iron["formula"] == "Fe" and iron["names"] == ["Iron"]


def test_kegg_records_become_a_metabolic_network(httpserver: HTTPServer, local, settings: Settings) -> None:
    """Two reaction records and their compounds, in KEGG's flat format (facts: water-gas shift, methane formation)."""
    flat = """ENTRY       R00001                      Reaction
EQUATION    C00237 + C00001 <=> C00011 + C00282
ENZYME      1.2.7.4
///
ENTRY       C00237                      Compound
NAME        CO
FORMULA     CO
///
ENTRY       C00001                      Compound
NAME        H2O
FORMULA     H2O
///
ENTRY       C00011                      Compound
NAME        CO2
FORMULA     CO2
///
ENTRY       C00282                      Compound
NAME        Hydrogen
FORMULA     H2
///
"""
    source = local("kegg", serve(httpserver, flat.encode()))
    answer = fetch(source, "get/R00001+C00237", settings=replace(settings, accepted=frozenset({"kegg"})))
    graph = metabolism_of(answer.records)
    assert graph.reactions == ("R00001",) and set(graph.compounds) == {"C00237", "C00001", "C00011", "C00282"}
    assert graph.ec == ("1.2.7.4",) and sorted(graph.stoichiometry) == [-1, -1, 1, 1]
    assert np.allclose(graph.stoichiometry @ graph.elements[graph.edge_compound], 0)  # balanced


def test_bigg(httpserver: HTTPServer, local, settings: Settings) -> None:
    """BiGG's models of E. coli, as cobrapy ships them: the core becomes a graph, of iJO1366 every entry is counted."""
    for name, file, sizes in (("e_coli_core", "textbook", (72, 95)), ("iJO1366", "iJO1366", (1805, 2583))):
        body = files("cobra").joinpath(f"data/{file}.xml.gz").read_bytes()
        httpserver.expect_request(f"/{name}.xml.gz").respond_with_data(body)
        record = fetch(local("bigg", httpserver.url_for("")), name, settings=settings).records[0]
        model = libsbml.readSBMLFromString(gzip.decompress(record.payload.read_bytes()).decode()).getModel()
        assert model.getId() == name and (model.getNumSpecies(), model.getNumReactions()) == sizes
        if name == "e_coli_core":
            graph = metabolism_of(record)
            assert 70 <= len(graph.reactions) <= 96 and 50 <= len(graph.compounds) <= 80


@pytest.mark.parametrize("name", ["compounds", "reactions"])
def test_modelseed(name: str, httpserver: HTTPServer, local, settings: Settings, payload) -> None:
    path = payload("metabolism", f"ModelSEED_{name.capitalize()}_2021.json.gz")
    rows = json.loads(gzip.decompress(path.read_bytes()))[::8]
    columns = sorted(rows[0])
    lines = ["\t".join(columns)]
    lines += [
        "\t".join(str(row.get(c) or "").replace("\t", " ").replace('"', "'").replace("\n", " ") for c in columns)
        for row in rows
    ]
    httpserver.expect_request(f"/{name}.tsv").respond_with_data("\n".join(lines))
    answer = fetch(local("modelseed", httpserver.url_for("")), f"{name}.tsv", settings=settings, limit=100_000)
    assert len(answer.records) == len(rows) > 3_000 and not answer.quarantined
    one = fetch(local("modelseed", httpserver.url_for("")), f"{name}.tsv#{rows[5]['id']}", settings=settings)
    assert [r.identifier for r in one.records] == [rows[5]["id"]] and one.records[0].provenance.from_cache


def test_cmr(httpserver: HTTPServer, local, settings: Settings, payload) -> None:
    found = 0
    for path in sorted(payload("payloads", "earthaccess").glob("*_umm.json")):
        data = json.loads(path.read_text())
        rows = json_rows("items", error="errors")(path.read_bytes(), "nasa-cmr")
        assert rows == data["items"] and all("umm" in row and "meta" in row for row in rows)
        found += len(rows)
    assert found >= 5


def test_cmr_pages(httpserver: HTTPServer, local, settings: Settings, payload) -> None:
    body = payload("payloads", "earthaccess", "atl03_umm.json").read_bytes()
    httpserver.expect_ordered_request("/granules.umm_json").respond_with_data(
        body, headers={"CMR-Search-After": '["a",1]'}
    )
    httpserver.expect_ordered_request("/granules.umm_json", headers={"CMR-Search-After": '["a",1]'}).respond_with_data(
        body
    )
    answer = fetch(local("nasa-cmr", httpserver.url_for("")), "ATL03", settings=settings)
    assert len(answer.records) == 2 * len(json.loads(body)["items"]) and answer.complete


def test_cmr_error(httpserver: HTTPServer, local, settings: Settings) -> None:
    base = serve(httpserver, b'{"errors": ["Parameter [foo] was not recognized."]}', status=400)
    with pytest.raises(SourceError, match=r"HTTP 400.*Parameter \[foo\] was not recognized"):
        fetch(local("nasa-cmr", base), "foo=1", settings=settings)


def test_esgf(httpserver: HTTPServer, local, settings: Settings, recording) -> None:
    """A published CMIP6 item behind a STAC interface."""
    item = json.loads(recording("esgf_stac_item.json"))
    base = httpserver.url_for("").rstrip("/")
    conforms = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
    conforms += ["https://api.stacspec.org/v1.0.0/item-search#query"]
    links = [
        {"rel": "self", "href": base},
        {"rel": "search", "href": f"{base}/search", "method": "POST", "type": "application/geo+json"},
    ]
    landing = {
        "type": "Catalog",
        "id": "esgf",
        "description": "d",
        "stac_version": "1.0.0",
        "conformsTo": conforms,
        "links": links,
    }
    httpserver.expect_request("/").respond_with_json(landing)
    httpserver.expect_request("/search").respond_with_json(
        {"type": "FeatureCollection", "features": [item], "links": []}
    )
    answer = fetch(local("esgf", base), "collections=CMIP6&cmip6:variable_id=clcalipso", settings=settings)
    assert [r.identifier for r in answer.records] == [item["id"]] and answer.records[0].payload == item
    assert httpserver.log[-1][0].get_json()["query"] == {"cmip6:variable_id": {"eq": "clcalipso"}}
