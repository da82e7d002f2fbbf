#!/bin/sh
# Installs what jcs_parity_test compares against: Node.js from the system's packages, rfc8785 from PyPI into BUILD_DIR/jcs.
# Safe to run again. Usage: jcs_setup.sh BUILD_DIR
set -eu
build_dir=${1:?usage: jcs_setup.sh BUILD_DIR}
if ! command -v node > /dev/null || ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq nodejs python3 python3-venv
fi
if ! "$build_dir/jcs/bin/python" -c 'import rfc8785' 2> /dev/null; then
  python3 -m venv --clear "$build_dir/jcs"
  "$build_dir/jcs/bin/pip" install --quiet --disable-pip-version-check rfc8785==0.1.4
fi
