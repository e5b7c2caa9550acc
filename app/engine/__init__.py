"""Tokens in, candidates out. The only floor that knows torch's inference side."""

import os

# Read when torch is loaded: a thread that waits for others sleeps. By default it spins, on a core that those may need:
# beside one other busy process an encoder on two threads took twelve times as long as on one.
os.putenv("OMP_WAIT_POLICY", "passive")
