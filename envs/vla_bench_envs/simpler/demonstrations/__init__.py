"""What SIMPLER's demonstrations start from and are played by; `vla_bench_envs.demonstrations` collects them.

| file | what it is |
| --- | --- |
| `initial_states.py` | where demonstrations start: near where policies are evaluated, never there |
| `source.py` | environment, expert, names and pushes |
"""
