"""Folders of pictures as people have them: which files count, their captions and masks, how each is cut."""
