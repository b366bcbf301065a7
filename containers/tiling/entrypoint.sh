#!/bin/sh
# Two callers start this image: a task gives a command, Dataflow (or another Beam runner) only flags for Beam's boot.
set -eu
case ${1:-} in
  '') exec bagline --help ;;
  --*) ;;
  *) exec "$@" ;;
esac
boot=/opt/apache/beam/boot
if ! [ -x "$boot" ]; then
  echo "this image was built without Beam's boot and can't be a Beam worker; build it with BEAM_SDK=apache/beam_python3.11_sdk:VERSION" >&2
  exit 2
fi
# Dataflow mounts the folder for staged files as root's; this image is not root, and the last flag counts.
for flag in "$@"; do
  case $flag in
    --semi_persist_dir=*) folder=${flag#*=} && mkdir -p "$folder/staged" 2>/dev/null && [ -w "$folder/staged" ] \
      || set -- "$@" "--semi_persist_dir=$(mktemp -d)" ;;
  esac
done
exec "$boot" "$@"
