"""A real node on this machine: containerd, kubelet and scheduler in namespaces of their own, which take all along when they end.

binaries.py    the programs of the node, built from pinned modules; runc from the distribution
preparation.py all that it takes, got before it starts
conditions.py  what a machine must have for it, and the one message when it has not
cell.py        the namespaces: process, mount, network and cgroup; inside.py and enter.py run in them
network.py     the addresses, and the one link between the machine and the cell
cgroups.py     the cell's cgroups, and how they go
files.py       the configuration of containerd, CNI and kubelet
archive.py     images without a container engine: the pause image
node.py        the node as one object
"""
