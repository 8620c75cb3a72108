"""The forward model, star to photons: scenarios, climates, atmospheres, spectra, organisms, texts."""
