"""A worker process of the tuner whose runner is on a device.

`python -m lpgen.farm.worker PIPE PARENT LOCK CORES TIMING LINKS TIMEOUT`: as `lpgen.tune.worker`,
then the address of the farm's links, and the seconds that checking, and timing, may take there.
"""

import sys

from lpgen.farm.remote import RemoteRunner
from lpgen.tune.worker import serve

if __name__ == "__main__":
    *own, links, timeout = sys.argv[1:]
    serve(own, lambda place: RemoteRunner(links, float(timeout)))
