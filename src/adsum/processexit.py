"""Functions to call at the normal end of a process, whichever way the process ends.

`atexit` covers scripts, servers that leave by SystemExit (gunicorn), and spawned children. A forked
child of `multiprocessing` leaves by `os._exit` and runs finalizers only; a child of Celery sends a
signal. Daemon threads still run at these moments, and all other threads have ended.
"""

import atexit
import sys
from collections.abc import Callable


def call_at_exit(function: Callable[..., None]) -> None:
    """Call a function at the normal end of this process; it may be called more than once.

    Celery is not imported by this: if it is not loaded, this process is none of its workers.

    Args:
        function: Called with any keyword arguments, those of Celery's signal.
    """
    atexit.unregister(function)
    atexit.register(function)
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, function, exitpriority=10)
    celery = sys.modules.get("celery.signals")
    if celery is not None:
        celery.worker_process_shutdown.connect(function, weak=False)
