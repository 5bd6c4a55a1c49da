#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Those of the programs of `make check-programs` that take some seconds, as part of `make check`.

exec "$(dirname "$0")/run" perl sqlite3 xz git gcc
