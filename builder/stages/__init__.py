"""What runs as a task: a pure middle between two I/O ends."""
