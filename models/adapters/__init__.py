"""LoRA and its relatives: put into a network by peft, and read and written in everybody's format."""
