"""Pictures that people bring to train on: data sets, their captions, and small copies to look at."""
