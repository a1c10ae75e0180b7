"""What an author of a Hearth function may import: `Context`, `Model`, `Response`, `Upload`, `InputError`,
`Cancelled`, `CallError`.

A function is a class with `load(self, context)` (or `__init__(self, context)`) and `predict(self, input, context)`:

    class Model:
        def load(self, context):
            self.greeting = context.config.get("greeting", "hello")

        def predict(self, input, context):
            if not isinstance(input, dict) or "name" not in input:
                raise InputError('send {"name": "…"}')
            return {"answer": f"{self.greeting}, {input['name']}"}

What `predict` raises is answered with 500 and logged, but for `InputError`, which is the client's fault: 400.

A function of many models has `load(self, model)`, which returns the loaded model, and finds that as `context.model` in
`predict`.
"""

from hearth_runtime.calls import CallError
from hearth_runtime.context import Cancelled, Context, Model
from hearth_runtime.payload import InputError, Response, Upload

__all__ = ["CallError", "Cancelled", "Context", "InputError", "Model", "Response", "Upload"]
