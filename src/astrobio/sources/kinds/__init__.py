"""The seven connector kinds; a database is one declaration of one of them."""

from astrobio.sources.kinds.base import Source, fetch
from astrobio.sources.kinds.files import FileSet
from astrobio.sources.kinds.grid import Grid
from astrobio.sources.kinds.job import Job
from astrobio.sources.kinds.oaipmh import OaiPmh
from astrobio.sources.kinds.rest import Rest
from astrobio.sources.kinds.stac import Stac
from astrobio.sources.kinds.tap import Tap

__all__ = ["FileSet", "Grid", "Job", "OaiPmh", "Rest", "Source", "Stac", "Tap", "fetch"]
