"""The driver of a sweep: it starts the jobs, survives them, and goes on with a sweep that was cut short."""
