"""What is wrong with a prompt, said before anything runs."""
