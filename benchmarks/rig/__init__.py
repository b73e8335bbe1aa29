"""What the benchmarks on a GPU share: models, rows, plain scripts, runs of forge, and tables."""
