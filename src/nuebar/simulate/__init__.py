"""The built-in detector Monte Carlo: cascades, light, calibration sources, IBD pairs, radioactivity, streams."""
