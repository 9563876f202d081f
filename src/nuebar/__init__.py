"""nuebar (ν̄e): reactor antineutrinos from raw events to oscillation parameters."""

__version__ = "0.1.0.dev0"
