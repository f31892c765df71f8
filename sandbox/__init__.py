"""A Kubernetes control plane and a stand-in Squidex on this machine, for the demo, tests and benchmarks."""
