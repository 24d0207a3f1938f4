"""The figures behind what adsum claims: `python -m benchmarks`."""
