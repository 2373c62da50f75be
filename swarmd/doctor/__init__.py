"""`swarmd doctor`: what it looks at, a field a file, and what it says of it."""
