# The environment only; the checkout is mounted at /project. See docs/installation.md.
FROM python:3.11-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

# Git refuses repositories of another user, such as a mounted one with a different user id.
ARG UID=1000
RUN useradd --create-home --uid "$UID" user \
    && install --directory --owner user /project \
    && git config --system safe.directory /project
USER user
WORKDIR /project
ENV VENV=/home/user/venv PATH=/home/user/venv/bin:$PATH

# An extra package index with another build of torch, such as CPU only; the default includes CUDA (5 GB).
ARG TORCH_INDEX=
COPY --chown=user . .
RUN PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=$TORCH_INDEX make install

CMD ["make", "repro"]
