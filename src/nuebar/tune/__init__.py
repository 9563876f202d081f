"""Tuning of the detector Monte Carlo: conditional densities of calibration spectra, and the response they imply."""
