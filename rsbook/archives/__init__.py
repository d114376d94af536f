"""One module per archive: its raw files in, `Scenes` out."""
