"""Other functions as models behind one endpoint: each is loaded when it is asked for, and makes room for others."""

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
        return function.predict(input, Surroundings(surroundings.bundle, surroundings.config, context))


class Surroundings:
    """What a function sees where it is one of many: its own folder and config, and the request's context."""

    def __init__(self, bundle, config, context=None):
        self.bundle = bundle
        self.config = config
        self.context = context

    def __getattr__(self, name):
        return getattr(self.context, name)
