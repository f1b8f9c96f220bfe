"""Plans that ship: `vla-bench run --plan NAME`. The ablations of LAC are named after the paper's."""
