#!/bin/sh
# Installs moto from PyPI into BUILD_DIR/aws: a server that speaks as AWS does and that nobody here wrote.
# Safe to run again. Usage: aws_setup.sh BUILD_DIR
set -eu
build_dir=${1:?usage: aws_setup.sh BUILD_DIR}
if ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq python3 python3-venv
fi
if ! "$build_dir/aws/bin/python" -c 'import boto3, flask, moto' 2> /dev/null; then
  python3 -m venv --clear "$build_dir/aws"
  "$build_dir/aws/bin/pip" install --quiet --disable-pip-version-check 'moto[server,kms,s3]==5.2.5'
fi
