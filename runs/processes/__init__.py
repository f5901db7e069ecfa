"""A run of several processes: how they are started from one program, and the log that each keeps."""
