"""The image that ships, built of the Dockerfile of this clone.

store.py    images of ours in the cache folder, by buildah; the base image, or what stands in for it
shipped.py  the image, built once for each state of its sources
sizes.py    how large it is
"""

from sandbox.images.shipped import Built, build

__all__ = ["Built", "build"]
