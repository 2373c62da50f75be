#!/bin/sh
# -P, -s: neither the current folder nor a user's packages come before the bundled ones. Not -I, so that a task
# environment of one's own can be named by PYTHONPATH in a drop-in of the unit.
exec /usr/lib/swarmd/bin/python3 -P -s -m swarmd "$@"
