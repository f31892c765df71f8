# Build: docker build -t squidex-operator:0.1.0 .   (or buildah, podman, kaniko: nothing here is special to one of them)
#
# The base is pinned to an exact tag. A digest would pin its bytes too, but has to be looked up in the registry by whoever
# publishes the image, and renewed with the tag:  FROM python:3.13.16-slim-trixie@sha256:…  in both stages.

FROM python:3.13.16-slim-trixie AS build

WORKDIR /src
# The dependencies first: their layer is built anew only when the lock file changes.
COPY requirements/ requirements/
# Two environments: one builds the wheel, the other is what ships. Only wheels, each with a hash: no compiler is needed, and
# nothing is run that was not locked. pip would compile with time stamps; the bytecode is made below.
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r requirements/build.txt \
    && python -m venv --without-pip /opt/squidex-operator \
    && /opt/build/bin/pip --python /opt/squidex-operator/bin/python install --no-cache-dir --no-compile \
        --no-deps --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator/ operator/
# Without build isolation: it would download the build requirements once more, without hashes.
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/build/bin/pip --python /opt/squidex-operator/bin/python install --no-cache-dir --no-compile \
        --no-index --no-deps dist/*.whl \
    # The Kubernetes client is 75 MB, of which the operator, which works on plain dicts, uses one: the rest are generated
    # classes, one module each, loaded by name when asked for. The check in the last stage would tell if that changed.
    && find /opt/squidex-operator/lib -regex '.*/kubernetes/\(aio/\)?client/\(api\|models\)/.*\.py' \
        ! -name __init__.py -delete \
    # Hash-based bytecode stays valid whatever a builder does to the files' times.
    && python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/squidex-operator/lib


FROM python:3.13.16-slim-trixie

LABEL org.opencontainers.image.title="squidex-operator" \
      org.opencontainers.image.description="Keeps Squidex access tokens in Kubernetes Secrets" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

# The root file system is read-only in the cluster, so bytecode cannot be written there later: the base ships its standard
# library without any, and each start would compile what it imports. pip is of no use in a running operator.
RUN python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -x '/(site-packages|dist-packages|idlelib|tkinter)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && rm -rf /usr/local/lib/python3.13/site-packages/pip* /usr/local/lib/python3.13/ensurepip /usr/local/bin/pip*

COPY --from=build /opt/squidex-operator /opt/squidex-operator

# HOME: the user below has none, and the Kubernetes client does not even load without one.
ENV PATH=/opt/squidex-operator/bin:$PATH \
    HOME=/ \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# A number, so that the kubelet can tell that it is not root (runAsNonRoot); nothing in the image belongs to it.
USER 65532:65532

# All that it is made of loads, as this user: what was left out above was not needed. tests/pods/test_image.py lets it
# get each kind of token as well.
RUN squidex-operator --version \
    && python -c 'import importlib, pkgutil, squidex_operator as all; \
[importlib.import_module(module.name) for module in pkgutil.walk_packages(all.__path__, "squidex_operator.")]'

EXPOSE 8080
ENTRYPOINT ["squidex-operator"]
