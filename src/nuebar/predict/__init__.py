"""Predictors of the reconstructed spectrum, and the model that adds backgrounds and pulls."""
