"""Loaded by every Python process whose PYTHONPATH names this folder: some cases then kill the process that reads them.

``FAULTS_POISON`` is ``name=fault,...``: reading an object of a path with that name dies by ``segv``, exits, raises, or
takes ``memory`` without end.
"""

import importlib.abc
import importlib.util
import os
import signal
import sys

TARGET = "builder.stages.fetch"


class Poisoner(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        self.real = found.loader
        found.loader = self
        return found

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.real.exec_module(module)
        read = module.read_object
        poison = dict(pair.split("=") for pair in os.environ["FAULTS_POISON"].split(","))

        def read_object(row, sources, **options):
            for name, fault in poison.items():
                if name in row.path:
                    die(fault)
            return read(row, sources, **options)

        module.read_object = read_object


def die(fault):
    if fault == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fault == "exit":
        os._exit(3)
    held = []
    while fault == "memory":
        held.append(bytearray(32 << 20))


if os.environ.get("FAULTS_POISON"):
    sys.meta_path.insert(0, Poisoner())
