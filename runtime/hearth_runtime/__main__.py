"""Entry points: `python __main__.py zygote MODULE…` and `python __main__.py worker`."""

import os
import sys


def main() -> None:
    # Started by path with -I, so that neither the caller's folder nor PYTHONPATH decides what is imported.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role == "zygote":
        from hearth_runtime import zygote

        zygote.main(sys.argv[2:])
    elif role == "worker":
        from hearth_runtime import worker

        worker.main_of_spawned()
    else:
        sys.exit("usage: python -m hearth_runtime zygote [MODULE…] | worker")


if __name__ == "__main__":
    main()
