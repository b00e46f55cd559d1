"""What will be done, before it is done: `explain`."""
