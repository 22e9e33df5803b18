"""Jobs: one module per run kind, each a function `run(spec)` that returns an xarray dataset."""
