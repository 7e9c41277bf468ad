#!/usr/bin/env bash
# Prints the manifest by which krew installs the plugin: krew.sh URL ARCHIVE..., where URL is the folder that the archives are
# fetched from, and an archive is named kubectl-moe-OS-ARCH.tar.gz and holds kubectl-moe, kubectl_complete-moe and LICENSE.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

if [ $# -lt 2 ]; then
  echo "usage: $0 URL kubectl-moe-OS-ARCH.tar.gz..." >&2
  exit 2
fi
url=${1%/}
shift
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")

cat << END
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: moe
spec:
  version: v$version
  homepage: $url
  shortDescription: Look into MoE deployments and plan where experts go
  description: |
    Shows MoEDeployments, their expert maps and loads, rebalances them, and plans, simulates and sizes expert placements
    from recorded loads without a cluster. Reads and writes the maps of vLLM, vllm-ascend, SGLang and TensorRT-LLM.
  caveats: |
    kubectl completes its words where kubectl_complete-moe is on the PATH:
      ln -s "\${KREW_ROOT:-\$HOME/.krew}/store/moe/v$version/kubectl_complete-moe" ~/.local/bin/
  platforms:
END
for archive in "$@"; do
  name=$(basename "$archive")
  if ! [[ $name =~ ^kubectl-moe-(linux|darwin)-(amd64|arm64)\.tar\.gz$ ]]; then
    echo "$name is not named kubectl-moe-OS-ARCH.tar.gz, with linux or darwin and amd64 or arm64" >&2
    exit 1
  fi
  cat << END
    - selector:
        matchLabels:
          os: ${BASH_REMATCH[1]}
          arch: ${BASH_REMATCH[2]}
      uri: $url/$name
      sha256: $(sha256sum "$archive" | cut -d ' ' -f 1)
      bin: kubectl-moe
END
done
