"""Pure maths, one topic a file: the folder to read first."""
