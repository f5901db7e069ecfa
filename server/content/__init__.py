"""What the server shows and keeps for people: pictures, runs, data sets, templates, logs."""
