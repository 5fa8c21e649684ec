"""From own arrays to records: what pack.py is made of."""
