"""Other functions as models behind one endpoint: each is loaded when it is asked for, and makes room for others."""

import copy
import importlib.util
import json


class Zoo:
    def load(self, model):
        """A model's folder is a function: its handler, what is under `config` in its function.yaml, and its weights."""
        described = json.loads((model.path / "model.json").read_text())
        spec = importlib.util.spec_from_file_location(f"zoo.{model.name}", model.path / "handler.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function = getattr(module, described["class"])()
        surroundings = Surroundings(model.path, described["config"])
        function.load(surroundings)
        return function, surroundings

    def predict(self, input, context):
        function, surroundings = context.model
        own = copy.copy(context)
        own.bundle, own.config = surroundings.bundle, surroundings.config
        return function.predict(input, own)


class Surroundings:
    """What a function sees while it loads, where it is one of many."""

    def __init__(self, bundle, config):
        self.bundle = bundle
        self.config = config
