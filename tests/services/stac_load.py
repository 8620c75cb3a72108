"""Writes what `up.sh stac` loads: a collection, a published CMIP6 item, and eleven with other members."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(item_path: str, folder: str) -> None:
    """`collection.ndjson` and `items.ndjson` in `folder`."""
    item = json.loads(Path(item_path).read_text())
    item["properties"]["datetime"] = item["properties"]["start_datetime"]
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["1850-01-01T00:00:00Z", None]]}}
    collection = {
        "type": "Collection", "stac_version": "1.0.0", "id": "CMIP6", "description": "CMIP6", "license": "CC-BY-4.0",
        "links": [], "extent": extent,
    }  # fmt: skip
    items = []
    for number in range(12):
        one = json.loads(json.dumps(item))
        member = f"r{number + 4}i1p1f1"
        one["id"] = item["id"].replace("r4i1p1f1", member)
        one["properties"]["cmip6:variant_label"] = member
        items.append(one)
    Path(folder, "collection.ndjson").write_text(json.dumps(collection) + "\n")
    Path(folder, "items.ndjson").write_text("".join(json.dumps(one) + "\n" for one in items))


if __name__ == "__main__":
    main(*sys.argv[1:])
