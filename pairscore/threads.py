"""How many cores torch uses in a thread, which the decoders and the encoders both set."""

import threading

import torch

# Two threads that set and put back at the same time would take each other's 1 for the original.
_configuring = threading.Lock()


def use_one_core() -> None:
    """Have torch use one core in the calling thread, and what it did in all others.

    `torch.set_num_threads` also sets what threads start with that come to torch later; one that
    ends at once puts this back.
    """
    with _configuring:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        restore = threading.Thread(target=torch.set_num_threads, args=(threads,))
        restore.start()
        restore.join()
