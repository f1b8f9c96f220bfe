"""Evaluation on a robot: a sealed plan, trials that a person labels without knowing the method, a report that unseals.

| file | what it is |
| --- | --- |
| `plan.py` | what is decided beforehand, its hash, and the trials in their random order |
| `seal.py` | which method is which, hidden until the report, and the hash that commits to it |
| `folder.py` | where a plan's files lie; reading them refuses what does not match |
| `records.py` | what a trial leaves besides its episode, and labels |
| `scene.py` | reference images of starts, and the score that says how well a scene was reset |
| `film.py` | pictures of a trial, for raters that come later |
| `watching.py` | the environment, watched: what the robot did, and whether the operator ends the trial |
| `operators.py` | who places, watches and labels: the simulator, or a person at the page |
| `desk.py`, `page.py`, `page.html`, `page.css`, `page.js` | the operator page |
| `emergency.py` | the page's way to the robot server besides the one that plays |
| `running.py` | the plan, played: the harness of every run, with labels |
| `labelling.py` | labels by a second rater, from films |
| `agreement.py` | how far raters agree |
| `unsealing.py` | blind records with their methods' names, as every table reads them |
| `report.py`, `text.py` | what was found |
| `commands.py` | `vla-bench robot plan`, `run`, `label`, `report` |
"""
