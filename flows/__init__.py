"""What runs when: the flows that people schedule, and the command line."""
