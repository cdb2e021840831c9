"""What runs a training: the loop, its schedule, its log and its resumable state."""
