"""Parts of tools/benchmark.py: models of two sizes, clips, the stock loop, our loop, the loader."""
