"""The only folder that opens data files."""
