"""astrobio: joint machine learning on text, spectra, climates and metabolisms in the search for life."""

__version__ = "0.1.0"
