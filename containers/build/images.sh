#!/usr/bin/env bash
# Builds images and writes images.json, name to reference by digest: images.sh FILE NAME...; options as of image.sh
set -euo pipefail
file=$1
shift
separator='{'
for name in "$@"; do
  reference=$("$(dirname "$0")/image.sh" "$name")
  printf '%s\n  "%s": "%s"' "$separator" "$name" "$reference"
  separator=','
done >"$file.part"
printf '\n}\n' >>"$file.part"
mv "$file.part" "$file"
cat "$file"
