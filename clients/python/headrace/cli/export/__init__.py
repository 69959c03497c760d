"""What comes out, written to disk: rows to one file (`file`), a training set to a folder (`command`)."""
