#!/usr/bin/env bash
# build_docs.sh OUT: the pages of this commit in OUT/dev, of every release in OUT/VERSION, and a front page
# that leads to the newest release. Each knows the others (docs/_templates/versions.html).
set -euo pipefail
out=$(realpath -m "$1")
tags=$(git tag --list 'v*' --sort=-version:refname)
export DOCS_VERSIONS="dev $tags"
make docs
mkdir -p "$out"
cp -r docs/_build/html "$out/dev"
for tag in $tags; do
    tree=$(mktemp -d)
    git worktree add --detach "$tree" "$tag"
    make -C "$tree" docs
    cp -r "$tree/docs/_build/html" "$out/$tag"
    git worktree remove --force "$tree"
done
first=$(echo "$tags dev" | tr ' ' '\n' | head -n 1)
echo "<meta http-equiv=\"refresh\" content=\"0; url=$first/index.html\">" > "$out/index.html"
