"""What an episode asks: the tasks, their goals, schedules, options and success."""
