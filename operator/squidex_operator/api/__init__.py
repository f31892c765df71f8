"""What users and Kubernetes see of the operator: the SquidexClient, names and reasons. Pure: no I/O, no clock."""
