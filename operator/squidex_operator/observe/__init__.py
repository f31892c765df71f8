"""What people and machines see of the running process: metrics, logs, health."""
