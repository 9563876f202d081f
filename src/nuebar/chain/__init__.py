"""The chain: simulate, select, tune, predict, fit, report, each stage from the files of the stages before it."""
