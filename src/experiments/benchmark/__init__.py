"""Speed, side by side: every contender in a process of its own, in turn, round after round.

Nothing here imports torch: what a process is charged with at its start includes the memory of the one that starts it.
"""
