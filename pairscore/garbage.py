"""What Python's garbage collector need not look at again and again."""

import gc


def set_aside() -> None:
    """Have it pass over all that there is by now, for as long as this process lives.

    For a process that has loaded what it works with. Modules and a model are some 200,000 objects;
    each full collection looks at all it knows of, while every thread waits.
    """
    gc.collect()
    gc.freeze()
