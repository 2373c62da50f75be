"""What the node tells of itself: the status file."""
