"""What the commands print that are not the node itself, a command or a few related ones a file."""
