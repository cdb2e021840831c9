#!/usr/bin/env bash
# Prints the path of a Python that jepa-gym supports (3.11 or 3.12). PYTHON=/path/to/python chooses one.
set -u
supported='import sys; print(sys.executable); sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'
for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
  if path=$("$candidate" -c "$supported" 2>/dev/null); then
    echo "$path"
    exit 0
  fi
done
if [ -n "${PYTHON:-}" ]; then
  echo "jepa-gym: PYTHON=$PYTHON is not a working Python 3.11 or 3.12." >&2
else
  echo "jepa-gym: no Python 3.11 or 3.12 on the PATH (3.13 has no numpy 1.26, which robosuite needs)." >&2
fi
echo "  Debian 12: apt-get install python3 python3-venv python3-dev. Elsewhere: pyenv or uv can install one." >&2
echo "  Then repeat, if need be with PYTHON=/path/to/python3.11 in front of the command." >&2
exit 1
