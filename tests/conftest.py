"""What holds for every test: as in swarmd's own processes, libraries are told before they are imported."""

import os

from swarmd.system.startup import prepare_process

# Offline, no telemetry, no thread pools that deadlock in a forked child; also inherited by the processes tests start.
prepare_process()
# Tests hold small tensors; on them threads cost more than they bring, and tests that train run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
