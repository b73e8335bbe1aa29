"""Find the files of a source and read their rows, whatever form they have."""
