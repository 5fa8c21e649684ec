"""What happened, for the eye: pages of runs and fitted mixtures. Reads plain data; never trains."""
