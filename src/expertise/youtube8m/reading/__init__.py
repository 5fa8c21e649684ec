"""From files to batches: what readers.py and cache.py are made of."""
