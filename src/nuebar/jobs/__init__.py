"""What the commands do: read, build, compute, and only then write. Glue between the stages."""
