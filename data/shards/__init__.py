"""Data sets of millions of pictures in tar files (WebDataset), local or at a URL: indexed, read by offset, encoded."""
