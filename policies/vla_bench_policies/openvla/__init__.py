"""The published OpenVLA family in modules of our own: no remote code, no timm, no torchvision.

config.py       what the JSON files of a checkpoint say
tensors.py      its tensors by name, read one at a time; progress, hash, shapes
vision.py       the two vision towers and the projector
model.py        the trunk: towers, projector, words, and a Llama that the token cache drives
pictures.py     from a rendered picture to what the towers are shown
jpeg.py         a JPEG round trip as TensorFlow does it
prompt.py       from an instruction to tokens
answers.py      from tokens and numbers to actions
cost.py         operations outside of the decoder
placement.py    where weights go and in what form: device, precision, bits, several GPUs
policy.py       OpenVLA, and what its relatives share with it
teaching.py     what training of gates asks of them: rows with the demonstrated answer, their own losses
pickles.py      tensors in .pt files
heads.py        what OpenVLA-OFT adds to the trunk
film.py         towers that are told the words
oft.py          OpenVLA-OFT
prismatic.py    checkpoints as training wrote them
diffusion.py    CogACT's action model
ensemble.py     how CogACT mixes its answers, and its gripper
cogact.py       CogACT
noise_teaching.py  what training of gates asks of CogACT
errors.py       what can be wrong with a published checkpoint
"""
