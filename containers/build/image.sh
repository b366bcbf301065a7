#!/usr/bin/env bash
# Builds one image, pushes it where REGISTRY is given, and prints its reference by digest: image.sh NAME
#   ENGINE         docker or podman; the one that answers
#   BASE_IMAGE     python:3.11-slim
#   BEAM_SDK       Beam's SDK image, for its boot; no-beam-sdk leaves it out
#   TRAINING_LOCK  requirements-gpu.lock makes the training image for accelerators
#   REGISTRY       HOST/PROJECT/REPOSITORY to push to, and to take cached layers from
#   IMAGE_TAG      python3.11
#   BUILD_OPTIONS  further options of `docker build`
set -euo pipefail
cd "$(dirname "$0")/../.."
name=$1
tag=${IMAGE_TAG:-python3.11}
dockerfile=containers/$name/Dockerfile
say() { printf '%s: %s\n' "$name" "$*" >&2; }

engine=${ENGINE:-}
for candidate in docker podman; do
  # a docker without buildx can't build these files; it may be a client of podman's socket
  if [ "$candidate" = docker ] && ! docker buildx version >/dev/null 2>&1; then continue; fi
  if [ -z "$engine" ] && "$candidate" info >/dev/null 2>&1; then engine=$candidate; fi
done
if [ -z "$engine" ]; then
  say 'no container engine answers; start docker or podman'
  exit 2
fi

read -ra options <<<"${BUILD_OPTIONS:-}"
options+=(--build-arg "BASE_IMAGE=${BASE_IMAGE:-python:3.11-slim}")
if [ "$engine" = podman ]; then
  # podman can lend the build the network and certificates of its host, which a proxy may have replaced
  options+=(--network host -v /etc/ssl/certs:/etc/ssl/certs:ro)
fi
if [ "$name" = tiling ]; then
  sdk=${BEAM_SDK:-$(sed -n 's/^ARG BEAM_SDK=//p' "$dockerfile")}
  if [ -z "${BEAM_SDK:-}" ] && [ -z "${REGISTRY:-}" ] && ! "$engine" image inspect "$sdk" >/dev/null 2>&1 \
    && ! timeout 120 "$engine" pull --quiet "$sdk" >/dev/null 2>&1; then
    say "$sdk can't be pulled; this image goes without Beam's boot and can't be a Dataflow worker"
    sdk=no-beam-sdk
  fi
  options+=(--build-arg "BEAM_SDK=$sdk")
fi
if [ "$name" = training ] && [ -n "${TRAINING_LOCK:-}" ]; then options+=(--build-arg "LOCK=$TRAINING_LOCK"); fi

reference=${REGISTRY:+$REGISTRY/}bagline-$name
if [ -n "${REGISTRY:-}" ] && [ "$engine" = docker ]; then
  options+=(--build-arg BUILDKIT_INLINE_CACHE=1 --cache-from "$reference:latest")
fi
DOCKER_BUILDKIT=1 "$engine" build "${options[@]}" --file "$dockerfile" --tag "$reference:$tag" . >&2
if [ -n "${REGISTRY:-}" ]; then
  "$engine" tag "$reference:$tag" "$reference:latest"
  "$engine" push "$reference:$tag" >&2
  "$engine" push "$reference:latest" >&2
fi

digest=$("$engine" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$reference:$tag" \
  | grep -E "(^|/)$reference@sha256:" | head -1 || true)
if [ -z "$digest" ] && [ -n "${REGISTRY:-}" ]; then
  say "was pushed, but $engine knows no digest of $reference:$tag"
  exit 1
fi
# An image that was never pushed has no digest in Docker's own store; its id does here, and nowhere else.
if [ -z "$digest" ]; then digest=$("$engine" image inspect --format '{{.Id}}' "$reference:$tag"); fi
printf '%s\n' "$digest"
