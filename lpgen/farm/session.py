"""The process that holds one session with a device: calls go in by a pipe, answers come back.

`python -m lpgen.farm.session PIPE PARENT HOST PORT KEY`. Calls of TVM's RPC cannot be ended from
within; this process can, and is, by its parent (link.py). It ends when the session does.
"""

import json
import sys

from lpgen import supervise
from lpgen.farm.protocol import FUNCTION, packed
from lpgen.tune.messages import READY, Phase

CONNECTED = Phase("holding a session", False)


def main(arguments: list[str]) -> None:
    """Lease a device, then answer calls until the pipe closes or the session is lost."""
    pipe, parent, host, port, key = arguments
    connection = supervise.connect(pipe, parent)
    from tvm import rpc

    connection.send(READY)
    remote = rpc.connect_tracker(host, int(port)).request(key, max_retry=1)
    connection.send(CONNECTED)
    function = remote.get_function(FUNCTION)
    description = json.loads(function("describe", packed(), 20.0))
    connection.send(description)
    while True:
        try:
            command, payload, seconds = connection.recv()
        except EOFError:
            return
        connection.send(function(command, payload, seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
