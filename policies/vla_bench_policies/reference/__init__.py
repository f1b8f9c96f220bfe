"""The reference VLA: a small vision-language-action transformer with trained weights, for machines without any.

model.py        config, row layout, the model as a whole
vision.py       patch embedding, vision transformer, projector
decoder.py      the causal Llama-style decoder and its key/value buffer
tokenizer.py    words to numbers
actions.py      normalisation, bins
"""
