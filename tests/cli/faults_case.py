"""What the tests of faults share: a model and an empty folder, made for all tests of a module."""

import os
import shutil
import tempfile

from support import Model


class LateModel(Model):
    def __init__(self):
        self.empty = None

    def make(self):
        super().__init__()
        self.empty = tempfile.mkdtemp(prefix="penstock-faults-")

    def remove(self):
        super().remove()
        shutil.rmtree(self.empty)


MODEL = LateModel()


# unittest calls these two by their names, in every module that imports them.
def setUpModule():
    MODEL.make()


def tearDownModule():
    MODEL.remove()


def folder():
    return MODEL.empty


def path(name):
    return os.path.join(folder(), name)


def ids_file():
    return MODEL.file("ids.json", "[1, 2, 3]")
