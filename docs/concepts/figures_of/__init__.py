"""The figures of the concept pages: a file a page, each function measures and gives what draws it."""
