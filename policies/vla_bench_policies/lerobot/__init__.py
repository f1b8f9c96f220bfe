"""Policies of LeRobot (huggingface/lerobot): pi0, pi0.5, SmolVLA, ACT and the others behind `PreTrainedPolicy`."""
